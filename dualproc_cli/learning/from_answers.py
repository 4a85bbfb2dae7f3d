"""Where steering the conditioning begins anew, second choice: at what the answers' own words change.

Where it leads hangs on its first steps. While an answer is not likely at all, its gradient says little about
what such a picture looks like, and may lead to where the subject is gone. But an open answer is words, and a
text encoder may know them: "a house in a field" becomes "a house in a field night". Answers that are found
from nothing come out cleaner, so that this comes second.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import Embeddings, Generator
from dualproc_cli.learning.phase import drawing_steered, micro_batches, steering_of
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
    prompts = prompts_in_turn(spec)

    def ask(prompts: Sequence[str]) -> tuple[Embeddings, float]:
        return draw_and_ask(spec, generator, criterion, prompts, lambda report: _of_questions(spec, report))

    plain, loss = ask(prompts)
    worded, _ = ask([" ".join([prompt, *words]) for prompt in prompts])
    steering_of(generator).begin_between(plain, worded)
    _, loss_there = ask(prompts)
    if not loss_there < loss:
        generator.load_steering_state(before)
    return loss_there < loss


def open_questions(spec: ControlSpec) -> list[Question]:
    """Return the questions that are learned, whose answer is more than Yes or No, and that have alternatives.

    Without alternatives, P(answer) is small where an answer is long, and does not tell whether it was found.
    """
    learned = [question for question in spec.questions if question.weight > 0 and question.alternatives]
    return [question for question in learned if opposite_answer(question.answer, ()) is None]


def prompts_in_turn(spec: ControlSpec) -> list[str]:
    """Return `PICTURES` prompts, those that are learned on in turn."""
    return list(islice(cycle(spec.prompts.train), PICTURES))


def draw_and_ask(
    spec: ControlSpec,
    generator: Generator,
    criterion: CompositeLoss,
    prompts: Sequence[str],
    loss_of: Callable[[LossReport], float | Tensor],
) -> tuple[Embeddings, float]:
    """Draw prompts, steered as it is now; return their embeddings and their pictures' mean loss."""
    tokens: dict[str, list[Tensor]] = {}
    loss, seeds = 0.0, validation_seeds(len(prompts))
    for rows in micro_batches(spec, generator, len(prompts)):
        part = prompts[rows.start : rows.stop]
        with drawing_steered(generator) as pictures:
            images = generator.render(part, seeds[rows.start : rows.stop])
        for key, embeddings in pictures.tokens().items():
            tokens.setdefault(key, []).extend(embeddings)
        report = criterion(images, torch.Generator().manual_seed(0))
        loss += float(loss_of(report)) * len(part) / len(prompts)
    return tokens, loss


def _of_questions(spec: ControlSpec, report: LossReport) -> float:
    return sum(question.weight * float(report.losses[question.name]) for question in spec.questions)
