"""What is recorded of every step of learning and of every validation, and means over the last few steps.

One batch is a handful of pictures, so a single step says little: means are taken over `WINDOW` steps.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

WINDOW = 5  # steps

PhaseName = Literal["steer", "teach", "weights"]


class StepMetrics(BaseModel):
    """One step of learning, measured before its update.

    Attributes:
        step: counted from 1, over all phases.
        phase: the phase of learning.
        loss: the questions' weighted loss, or the teaching's; what is minimised is ``loss + keep``.
        keep: the weighted cost of leaving the base generator.
        losses: the loss of each question by its name, unweighted; empty while teaching.
        probabilities: P(answer) of each question by its name, the mean over the batch; while teaching, over a
            few other pictures now and then, and else empty.
        gradient_norm: the norm of the gradient before clipping.
        learning_rate: the optimizer's in this step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    phase: PhaseName
    loss: float
    keep: float
    losses: dict[str, float]
    probabilities: dict[str, float]
    gradient_norm: float
    learning_rate: float


class Validation(BaseModel):
    """What was found at one step; shares are None if nothing judges whether pictures are right.

    Attributes:
        step: after which it was found.
        phase: of that step.
        right: share of the pictures that reach every goal.
        clean: share of the pictures that have no more artefacts than the base generator's.
        right_and_clean: share of both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    phase: PhaseName
    right: float | None
    clean: float
    right_and_clean: float | None

    @property
    def score(self) -> float:
        """What is compared: the share of pictures that are right and clean, or clean if that is not known."""
        return self.clean if self.right_and_clean is None else self.right_and_clean


def recent_loss(metrics: Sequence[StepMetrics]) -> float:
    """Return the mean of what is minimised, over the last `WINDOW` steps of the phase."""
    window = _of_phase(metrics)[-WINDOW:]
    return sum(entry.loss + entry.keep for entry in window) / len(window)


def recent_probabilities(metrics: Sequence[StepMetrics]) -> dict[str, float]:
    """Return the mean P(answer) of each question over the last of the steps that asked it."""
    last = next((index for index in reversed(range(len(metrics))) if metrics[index].probabilities), -1)
    window = [entry for entry in _of_phase(metrics[: last + 1]) if entry.probabilities]
    names = window[-1].probabilities if window else ()
    return {name: mean_probability(window, name) for name in names}


def mean_probability(metrics: Sequence[StepMetrics], question: str) -> float:
    """Return the mean P(answer) of a question over steps that asked it."""
    return sum(entry.probabilities[question] for entry in metrics) / len(metrics)


def first_and_last_probability(metrics: Sequence[StepMetrics], question: str) -> tuple[float, float]:
    """Return the mean P(answer) of a question over the first of the steps that asked it, and over the last.

    These are up to `WINDOW` steps of one phase, or the one that asked it among as many.
    """
    asked = [entry for entry in metrics if question in entry.probabilities]
    begin, end = asked[0], asked[-1]
    first = [one for one in asked if one.phase == begin.phase and one.step < begin.step + WINDOW]
    last = [one for one in asked if one.phase == end.phase and one.step > end.step - WINDOW]
    return mean_probability(first, question), mean_probability(last, question)


def _of_phase(metrics: Sequence[StepMetrics]) -> Sequence[StepMetrics]:
    """Return the last of ``metrics``, at most `WINDOW` of them, that are of the present phase."""
    last = metrics[-WINDOW:]
    return [entry for entry in last if entry.phase == last[-1].phase]
