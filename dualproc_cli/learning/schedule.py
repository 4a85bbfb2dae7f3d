"""The learning rate over a run."""

WARM_UP = 10  # steps, or a tenth of a run shorter than 100
DECAY = 0.4  # share of the run


def rate_factor(step: int, steps: int) -> float:
    """The factor in (0, 1] of the learning rate at ``step`` (from 0) of ``steps``.

    A linear warm-up over the first 10 steps at most, then constant, then over the last 40 % a linear decay
    that would reach zero one step after the last.
    """
    warm_up = min(WARM_UP, -(-steps // 10))
    return min(1.0, (step + 1) / warm_up, (steps - step) / (DECAY * steps))
