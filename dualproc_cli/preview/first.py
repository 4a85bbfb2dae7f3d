"""A first look at what a run would learn from: a few base pictures, and what the VLM says about them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, View
from dualproc_cli.drawing import draw_pictures, validation_seeds
from dualproc_cli.generator import Generator
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.preview.asking import BATCH, Asked, ask, nothing
from dualproc_cli.preview.findings import Finding, question_findings
from dualproc_cli.preview.overlays import overlay_findings
from dualproc_cli.spec import ControlSpec, Question
from dualproc_cli.stages import stage
from dualproc_cli.vlm import Vlm

FEW = 4  # pictures


@dataclass(frozen=True)
class FirstLook:
    """What a run finds before its first step.

    Attributes:
        asked: one entry for each question, about a few pictures.
        findings: as in `Preview`.
    """

    asked: list[Asked]
    findings: list[Finding]

    @property
    def lines(self) -> list[str]:
        """What to tell the user."""
        shown = [f"P({one.question.name}) {one.pictures.probability[0].mean():.2f}" for one in self.asked]
        return [f"before learning: {'  '.join(shown)}", *map(str, self.findings)]


def first_look(spec: ControlSpec, generator: Generator, criterion: CompositeLoss, vlm: Vlm) -> FirstLook:
    """Ask the questions about a few pictures, and about pictures that show nothing.

    It takes no random numbers from anywhere and changes no weights.
    """
    prompts = spec.prompts.train[:FEW]
    images = base_pictures(generator, prompts, validation_seeds(-(-FEW // len(prompts))))
    own = {question.name: len(question.trained_wordings) for question in spec.questions}
    found = [one for view in criterion.views for one in ask_about(view, images, criterion, own)]
    asked = [one for one in found if one.question.name in own]
    return FirstLook(asked, [*question_findings(asked), *about_overlays(criterion, spec, vlm)])


@torch.no_grad()
def base_pictures(generator: Generator, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Return a picture of each prompt at the first seed, then at the second, and so on: [S * P, 3, H, W]."""
    with uncompiled() if generator.spec.compile else nullcontext():
        size, drawn = generator.micro_batch(BATCH), []
        for prompt in prompts:
            stage(f"drawing {prompt}")
            drawn.append(torch.stack(list(draw_pictures(generator, prompt, seeds, size))))
    return torch.stack(drawn, 1).flatten(0, 1)


def ask_about(view: View, images: Tensor, criterion: CompositeLoss, own: Mapping[str, int]) -> list[Asked]:
    """Ask a view's questions about the pictures, and about pictures that show nothing."""
    objective = OBJECTIVES[criterion.learn.objective]
    pictures, blank = (ask(view, shown, objective) for shown in (images, nothing(images)))
    return [
        Asked(question, view, own.get(question.name, 1), pictures.of(wordings), blank.of(wordings))
        for question, wordings in wordings_of(view)
    ]


def wordings_of(view: View) -> list[tuple[Question, slice]]:
    """Return each of the view's questions with its places among the wordings that are asked."""
    starts = view.wordings(None)
    return [
        (question, slice(start, start + len(question.trained_wordings)))
        for question, start in zip(view.questions, starts, strict=True)
    ]


def about_overlays(criterion: CompositeLoss, spec: ControlSpec, vlm: Vlm) -> Iterator[Finding]:
    """Yield what is wrong with the visual prompts."""
    for view in criterion.views:
        yield from overlay_findings(view, spec.visual_prompts.get(view.questions[0].visual_prompt or ""), vlm)
