"""Where steering the conditioning begins anew: at what the answers' own words change of the text embeddings.

Where it leads hangs on its first steps. While an answer is not likely at all, its gradient says little about
what such a picture looks like, and may lead to where the subject is gone. But an open answer is words, and a
text encoder may know them: "a house in a field" becomes "a house in a field night". Answers that are found
from nothing come out cleaner, so that this comes second.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import Embeddings, Generator
from dualproc_cli.learning.phase import drawing_steered, steering_of
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
    prompts = [spec.prompts.train[index % len(spec.prompts.train)] for index in range(PICTURES)]
    plain, before_words = draw_and_ask(generator, criterion, prompts)
    with drawing_steered(generator) as worded:
        _draw(generator, [" ".join([prompt, *words]) for prompt in prompts])
    steering_of(generator).begin_between(plain, worded.tokens())
    _, there = draw_and_ask(generator, criterion, prompts)
    lower = _asked(spec, there) < _asked(spec, before_words)
    if not lower:
        generator.load_steering_state(before)
    return lower


def open_questions(spec: ControlSpec) -> list[Question]:
    """Return the questions that are learned, whose answer is more than Yes or No, and that have alternatives.

    Without alternatives, P(answer) is small where an answer is long, and does not tell whether it was found.
    """
    learned = [question for question in spec.questions if question.weight > 0 and question.alternatives]
    return [question for question in learned if opposite_answer(question.answer, ()) is None]


def _draw(generator: Generator, prompts: Sequence[str]) -> Tensor:
    return generator.render(prompts, validation_seeds(len(prompts)))


def draw_and_ask(
    generator: Generator, criterion: CompositeLoss, prompts: Sequence[str]
) -> tuple[Embeddings, LossReport]:
    """Draw prompts, steered as it is now; return their embeddings, and what the VLM says of the pictures."""
    with drawing_steered(generator) as pictures:
        images = _draw(generator, prompts)
    return pictures.tokens(), criterion(images, torch.Generator().manual_seed(0))


def _asked(spec: ControlSpec, report: LossReport) -> float:
    return sum(question.weight * float(report.losses[question.name]) for question in spec.questions)
