"""How many steps a phase takes, and its learning rate: by when the answers are likely."""

import math
from collections.abc import Sequence

from dualproc_cli.learning.phase import Phase
from dualproc_cli.metrics import WINDOW, StepMetrics, first_held
from dualproc_cli.spec import ControlSpec

WARM_UP = 10  # steps, or a tenth of a phase shorter than 100
DECAY = 0.4  # share of the phase in which the learning rate falls
NEAR = 0.75  # P(answer) that a phase which may be extended waits for before its learning rate falls


def rate_factor(step: int, steps: int) -> float:
    """Return the factor in (0, 1] of the learning rate at ``step`` (from 0) of ``steps``, if it is scheduled.

    It rises linearly over the first 10 steps at most, stays constant, and falls linearly over the last 40 %,
    so that it would reach zero one step after the last.
    """
    warm_up = min(WARM_UP, -(-steps // 10))
    return min(1.0, (step + 1) / warm_up, (steps - step) / (DECAY * steps))


class Schedule:
    """The steps of a phase since it last began, told one by one (`saw`), and how many there will be.

    Planned are ``phase.steps``, in the last 40 % of which the learning rate falls. It begins to fall sooner
    once P(answer) of all that is learned holds above ``learn.stop_at``; and later, where P(answer) is not
    above `NEAR` by then and the phase may be extended (``learn.extend``). The phase is as much shorter or
    longer. A learning rate that is constant does not fall: the phase ends at once.
    """

    def __init__(self, spec: ControlSpec, phase: Phase, metrics: Sequence[StepMetrics] = ()) -> None:
        """Prepare for ``phase``, of which ``metrics`` are known already."""
        self._learn, self._phase = spec.learn, phase
        self._learned = [question.name for question in spec.asked if question.weight > 0]
        # After how many steps P(answer) was first above `NEAR`, and above `learn.stop_at`.
        self._near = self._first_above(NEAR, metrics)
        self._held = self._first_above(spec.learn.stop_at, metrics)

    def saw(self, metrics: Sequence[StepMetrics]) -> None:
        """Take note of the last of ``metrics``, the steps since the phase began."""
        recent = metrics[-WINDOW:]
        if self._near is None and self._first_above(NEAR, recent):
            self._near = len(metrics)
        if self._held is None and self._first_above(self._learn.stop_at, recent):
            self._held = len(metrics)

    def steps(self, taken: int) -> int:
        """Return how many steps the phase takes, as far as is known after ``taken`` of them."""
        planned = self._phase.steps
        if self._learn.schedule == "constant":
            return min(self._held or planned, planned)
        if self._phase.extends and taken >= WINDOW and taken > (1 - DECAY) * planned:
            most = round(self._learn.extend * planned)
            planned = min(max(_with_decay(self._near), planned), most) if self._near else most
        return min(_with_decay(self._held), planned) if self._held else planned

    def learning_rate(self, taken: int) -> float:
        """Return the learning rate of the step after ``taken`` of them."""
        constant = self._learn.schedule == "constant"
        return self._phase.learning_rate * (1.0 if constant else rate_factor(taken, self.steps(taken)))

    def _first_above(self, threshold: float | None, metrics: Sequence[StepMetrics]) -> int | None:
        return first_held(metrics, threshold, self._learned) if self._phase.asks else None


def _with_decay(steps: int) -> int:
    """Return how many steps a phase takes whose learning rate falls after ``steps`` of them."""
    return math.ceil(steps / (1 - DECAY))
