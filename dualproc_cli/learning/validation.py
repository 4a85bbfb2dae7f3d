"""Choosing the best state of a phase by independent measures, on seeds that nothing else uses."""

from collections.abc import Sequence

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.evaluation import Referee
from dualproc_cli.generator import Generator
from dualproc_cli.metrics import PhaseName, Validation
from dualproc_cli.spec import ControlSpec

PROMPTS = 4  # at most, that pictures are drawn from to validate
WORSE = 0.06  # a share of right and clean pictures that is smaller by this is worse: 2 of 32 pictures
GOOD = 0.97  # a share that need not be improved


class Validator:
    """Validates the state of a generator; the base pictures are drawn and judged once."""

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        prompts = spec.prompts.train[:PROMPTS]
        seeds = validation_seeds(max(2, spec.learn.validation_pictures // len(prompts)))
        self._referee = Referee(spec, generator, prompts, seeds, criterion)
        self._generator = generator

    def validate(self, step: int, phase: PhaseName) -> Validation:
        """Judge what the generator draws now."""
        found = self._referee.judge(self._generator)
        return Validation(
            step=step,
            phase=phase,
            right=found.right,
            clean=found.clean,
            right_and_clean=found.right_and_clean,
        )


def is_best(found: Sequence[Validation]) -> bool:
    """Return whether the last validation has the highest score so far; the latest of equals counts."""
    return found[-1].score >= max(one.score for one in found)


def settled(found: Sequence[Validation]) -> bool:
    """Return whether the phase need not go on: it is good, or got worse twice in a row."""
    if not found:
        return False
    best = max(one.score for one in found)
    return found[-1].score >= GOOD or (len(found) > 2 and all(one.score < best - WORSE for one in found[-2:]))
