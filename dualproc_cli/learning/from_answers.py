"""Where steering the conditioning begins anew: at what the answers' own words change.

Where it leads hangs on its first steps. While an answer is not likely at all, its gradient says little about
what such a picture looks like, and may lead to where the subject is gone. But an open answer is words, and a
text encoder may know them: "a house in a field" becomes "a house in a field night". Answers that are found
from nothing come out cleaner, so that this comes second.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import Embeddings, Generator
from dualproc_cli.learning.phase import asked_at_once, drawing_steered, steering_of
from dualproc_cli.spec import ControlSpec, Question, opposite_answer

PICTURES = 8  # that the VLM is asked about, with the words' change and without


@torch.no_grad()
def start_from_answers(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> bool:
    """Set the offsets to what the answers' words change, if the loss of the spec's questions is lower there.

    Whether the pictures are clean does not count yet: that can be learned from there.

    Returns:
        Whether they were set.
    """
    words, before = [question.answer for question in open_questions(spec)], generator.steering_state()
    prompts = list(islice(cycle(spec.prompts.train), PICTURES))
    plain, loss = _draw(spec, generator, prompts, criterion)
    worded, _ = _draw(spec, generator, [" ".join([prompt, *words]) for prompt in prompts])
    steering_of(generator).begin_between(plain, worded)
    _, loss_there = _draw(spec, generator, prompts, criterion)
    if not loss_there < loss:
        generator.load_steering_state(before)
    return loss_there < loss


def open_questions(spec: ControlSpec) -> list[Question]:
    """Return the questions that are learned, whose answer is more than Yes or No, and that have alternatives.

    Without alternatives, P(answer) is small where an answer is long, and does not tell whether it was found.
    """
    learned = [question for question in spec.questions if question.weight > 0 and question.alternatives]
    return [question for question in learned if opposite_answer(question.answer, ()) is None]


def _draw(
    spec: ControlSpec, generator: Generator, prompts: Sequence[str], criterion: CompositeLoss | None = None
) -> tuple[Embeddings, float]:
    """Draw prompts, steered as it is now; return their embeddings and their pictures' mean loss, if asked."""
    tokens: dict[str, list[Tensor]] = {}
    loss, seeds = 0.0, validation_seeds(len(prompts))
    for rows in asked_at_once(spec, generator, len(prompts)):
        part = prompts[rows]
        with drawing_steered(generator) as pictures:
            images = generator.render(part, seeds[rows])
        for key, embeddings in pictures.tokens().items():
            tokens.setdefault(key, []).extend(embeddings)
        if criterion:
            losses = criterion(images, torch.Generator().manual_seed(0)).losses
            mean = sum(question.weight * float(losses[question.name]) for question in spec.questions)
            loss += mean * len(part) / len(prompts)
    return tokens, loss
