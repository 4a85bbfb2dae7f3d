"""Judging one state of a control after another against the same pictures of the base generator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import draw_pictures
from dualproc_cli.evaluation.ask import BATCH, ask, ask_perturbed
from dualproc_cli.evaluation.right_and_clean import (
    Pictures,
    Shares,
    answered,
    unjudged_questions,
)
from dualproc_cli.generator import Generator
from dualproc_cli.measures import (
    Evidence,
    clean_measures,
    judge_in_turn,
    measures_of,
    measures_of_evaluation,
)
from dualproc_cli.measures.clean import CleanRange, two_sided
from dualproc_cli.spec import ControlSpec


class Referee:
    """Says what share of a generator's pictures is right and clean, on a few seeds.

    The base generator's pictures and their range are computed once. Usage::

        referee = Referee(spec, generator, spec.prompts.train, validation_seeds(8), loss)
        best = referee.judge(generator).right_and_clean

    Questions that no measure judges count as answered rightly if ``loss`` gives the expected answers to the
    picture and to its perturbed versions.

    Attributes:
        base: shares of the base generator's own pictures.
    """

    def __init__(
        self,
        spec: ControlSpec,
        generator: Generator,
        prompts: Sequence[str],
        seeds: Sequence[int],
        loss: CompositeLoss,
    ) -> None:
        """Draw and judge the base generator's pictures: ``generator``'s without its adapter."""
        self._spec, self._prompts, self._seeds, self._loss = spec, prompts, list(seeds), loss
        self._goals = [measure for measure in measures_of(spec) if measure.role == "goal"]
        self._unjudged = unjudged_questions(spec, measures_of_evaluation(spec))
        self._clean = clean_measures(spec)
        self._device = generator.device
        with generator.without_adapter():
            self._base = self._draw(generator)
        found = self._find(self._base)
        self._range = CleanRange.of(torch.cat(found.statistics), two_sided(self._clean))
        self.base = found.shares(self._range)

    def judge(self, generator: Generator) -> Shares:
        """Return the shares of what ``generator`` draws now from the same prompts and seeds."""
        return self._find(self._draw(generator)).shares(self._range)

    @torch.no_grad()
    def _draw(self, generator: Generator) -> list[Tensor]:
        """Return what ``generator`` draws now: the pictures [N, 3, H, W] of each prompt."""
        return [
            torch.stack(list(draw_pictures(generator, prompt, self._seeds, BATCH)))
            for prompt in self._prompts
        ]

    def _find(self, drawn: Sequence[Tensor]) -> Pictures:
        evidences = [
            Evidence(images.float().cpu(), self._spec, base.float().cpu(), [prompt] * len(images))
            for prompt, images, base in zip(self._prompts, drawn, self._base, strict=True)
        ]
        found = Pictures()
        judged = judge_in_turn([*self._goals, *self._clean], lambda: evidences, self._device)
        for images, by in zip(drawn, judged, strict=True):
            found.add(by, self._goals, self._clean, self._steady(images) if self._unjudged else None)
        return found

    def _steady(self, images: Tensor) -> Tensor:
        """Return whether unjudged questions are answered as expected, also under perturbations: [N] bool."""
        asked = answered(ask(self._loss, images), self._unjudged)
        return asked & answered(ask_perturbed(self._loss, images), self._unjudged)
