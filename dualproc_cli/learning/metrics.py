"""The last few steps taken together: one batch is a handful of pictures, so single steps say little."""

from collections.abc import Sequence

from dualproc_cli.bundle import StepMetrics

WINDOW = 5  # steps


def recent_loss(metrics: Sequence[StepMetrics]) -> float:
    """Mean of what is minimised over the last `WINDOW` steps."""
    window = metrics[-WINDOW:]
    return sum(entry.loss + entry.keep for entry in window) / len(window)


def recent_probabilities(metrics: Sequence[StepMetrics]) -> dict[str, float]:
    """Mean P(answer) of each question over the last `WINDOW` steps."""
    window = metrics[-WINDOW:]
    names = window[-1].probabilities if window else ()
    return {name: sum(entry.probabilities[name] for entry in window) / len(window) for name in names}


def holds_above(metrics: Sequence[StepMetrics], threshold: float | None) -> bool:
    """Whether P(answer) of every question, averaged over the last `WINDOW` steps, is above ``threshold``."""
    if threshold is None or len(metrics) < WINDOW:
        return False
    return min(recent_probabilities(metrics).values()) > threshold
