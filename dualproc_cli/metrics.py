"""What is recorded of every step of learning, and means over the last few steps.

One batch is a handful of pictures, so a single step says little: means are taken over `WINDOW` steps.
"""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

WINDOW = 5  # steps


class StepMetrics(BaseModel):
    """One step of learning, measured before its update.

    Attributes:
        step: counted from 1.
        loss: the questions' weighted loss; what is minimised is ``loss + keep``.
        keep: the weighted distance to the base generator's pictures.
        losses: the loss of each question by its name, unweighted.
        probabilities: P(answer) of each question by its name, the mean over the batch.
        gradient_norm: the norm of the gradient before clipping.
        learning_rate: the optimizer's in this step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    loss: float
    keep: float
    losses: dict[str, float]
    probabilities: dict[str, float]
    gradient_norm: float
    learning_rate: float


def recent_loss(metrics: Sequence[StepMetrics]) -> float:
    """Return the mean of what is minimised, over the last `WINDOW` steps."""
    window = metrics[-WINDOW:]
    return sum(entry.loss + entry.keep for entry in window) / len(window)


def recent_probabilities(metrics: Sequence[StepMetrics]) -> dict[str, float]:
    """Return the mean P(answer) of each question over the last `WINDOW` steps."""
    window = metrics[-WINDOW:]
    names = window[-1].probabilities if window else ()
    return {name: sum(entry.probabilities[name] for entry in window) / len(window) for name in names}


def first_and_last_probability(metrics: Sequence[StepMetrics], question: str) -> tuple[float, float]:
    """Return the mean P(answer) of a question over the first `WINDOW` steps and over the last."""
    first, last = (
        sum(entry.probabilities[question] for entry in part) / len(part)
        for part in (metrics[:WINDOW], metrics[-WINDOW:])
    )
    return first, last


def holds_above(metrics: Sequence[StepMetrics], threshold: float | None, questions: Iterable[str]) -> bool:
    """Return whether P(answer) of each of ``questions`` is above ``threshold``.

    It is averaged over the last `WINDOW` steps. Without a threshold or that many steps, return False.
    """
    if threshold is None or len(metrics) < WINDOW:
        return False
    recent = recent_probabilities(metrics)
    return min(recent[name] for name in questions) > threshold
