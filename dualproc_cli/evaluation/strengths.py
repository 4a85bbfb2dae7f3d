"""What a control draws at other strengths of its adapter than the one it was learned at."""

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.evaluation.ask import ask, ask_perturbed
from dualproc_cli.evaluation.comparison import Strength
from dualproc_cli.evaluation.drawn import Drawn, draw
from dualproc_cli.evaluation.right_and_clean import Pictures, answered
from dualproc_cli.generator import Generator
from dualproc_cli.measures import Judgement, Measure
from dualproc_cli.measures.clean import CleanRange, two_sided
from dualproc_cli.spec import ControlSpec
from dualproc_cli.stages import stage

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # the first one draws the base generator's pictures
PICTURES = 32  # at each strength, about


def draw_strengths(spec: ControlSpec, generator: Generator, seeds: Sequence[int]) -> dict[float, list[Drawn]]:
    """Draw all prompts at the first few seeds with each strength.

    Args:
        spec: the spec that was learned.
        generator: with the learned adapter, loaded by `Generator.load_adapters`.
        seeds: held-out seeds, at least 2.

    Returns:
        The pictures by strength, prompt by prompt.
    """
    few = seeds[: max(2, PICTURES // len(spec.prompts.all))]
    found: dict[float, list[Drawn]] = {}
    for scale in STRENGTHS:
        stage(f"drawing at strength {scale:g}")
        with generator.at_strength(scale):
            pixels = [draw(generator, prompt, few) for prompt in spec.prompts.all]
        base = [part.pixels for part in found[STRENGTHS[0]]] if found else pixels
        parts = zip(spec.prompts.all, pixels, base, strict=True)
        found[scale] = [Drawn("learned", *part) for part in parts]
    return found


class Strengths:
    """Collects what the VLM that was trained against and the measures find in pictures of each strength.

    Questions that no measure judges count as answered rightly if the VLM gives the expected answers to the
    picture and to its perturbed versions.
    """

    def __init__(self, drawn: Mapping[float, Sequence[Drawn]]) -> None:
        """Prepare to judge what `draw_strengths` returned; nothing, if it was not asked for."""
        self._drawn = drawn
        self._answers: dict[float, dict[str, float]] = {}
        self._steady: dict[float, Sequence[Tensor | None]] = {}

    @property
    def parts(self) -> list[Drawn]:
        """What measures are to judge."""
        return [part for parts in self._drawn.values() for part in parts]

    def ask(self, loss: CompositeLoss, device: torch.device, unjudged: Sequence[str]) -> None:
        """Ask the VLM; ``unjudged`` are the questions that no measure judges."""
        for scale, parts in self._drawn.items():
            images = torch.cat([part.images for part in parts]).to(device)
            plain = ask(loss, images)
            self._answers[scale] = {name: float(found.mean()) for name, found in plain.items()}
            if unjudged:
                steady = answered(ask_perturbed(loss, images), unjudged)
                counts = [len(part.pixels) for part in parts]
                self._steady[scale] = (answered(plain, unjudged) & steady).split(counts)

    def result(
        self, judged: Sequence[dict[Measure, Judgement]], goals: Sequence[Measure], clean: Sequence[Measure]
    ) -> tuple[Strength, ...]:
        """Return the shares at each strength.

        Args:
            judged: what the measures found in each of `parts`.
            goals: those of them that say what is right.
            clean: those that say what is clean.
        """
        rows, found, clean_range = iter(judged), [], None
        for scale, parts in self._drawn.items():
            pictures = Pictures()
            steady = self._steady.get(scale, [None] * len(parts))
            for found_in_part, also in zip(islice(rows, len(parts)), steady, strict=True):
                pictures.add(found_in_part, goals, clean, also)
            clean_range = clean_range or CleanRange.of(torch.cat(pictures.statistics), two_sided(clean))
            shares = pictures.shares(clean_range)
            found.append(
                Strength(scale, shares.right, shares.clean, shares.right_and_clean, self._answers[scale])
            )
        return tuple(found)


def best_strength(found: Sequence[Strength]) -> Strength:
    """Return the strength with most right and clean pictures, or the highest P(answer) if that is unknown.

    P(answer) is that of the question with the lowest. Of equals, the nearest to 1 is the best.

    Args:
        found: at least one.
    """

    def order(one: Strength) -> tuple[float, float]:
        known = one.right_and_clean
        return min(one.questions.values()) if known is None else known, -abs(one.scale - 1)

    return max(found, key=order)
