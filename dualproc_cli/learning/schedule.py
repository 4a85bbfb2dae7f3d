"""How many steps a phase takes, and its learning rate: by when the answers are likely."""

import math
from collections.abc import Sequence

from dualproc_cli.learning.phase import Phase
from dualproc_cli.metrics import WINDOW, StepMetrics, mean_probability
from dualproc_cli.spec import ControlSpec

WARM_UP = 10  # steps, or a tenth of a phase shorter than 100
DECAY = 0.4  # share of the phase in which the learning rate falls
NEAR = 0.75  # P(answer) that a phase which may be extended waits for before its learning rate falls
FAR = 0.2  # P(answer) below which it does not, where a later phase moves what can give the answer


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
    above `NEAR` by then and the phase may be extended (``learn.extend``); what is still below `FAR` is left
    to a later phase, if one moves other things. The phase is as much shorter or longer. A learning rate that
    is constant does not fall: the phase ends at once.
    """

    def __init__(self, spec: ControlSpec, phase: Phase, metrics: Sequence[StepMetrics] = ()) -> None:
        """Prepare for ``phase``, of which ``metrics`` are known already."""
        self._learn, self._phase = spec.learn, phase
        self._learned = [question.name for question in spec.asked if question.weight > 0]
        self._falls = (1 - DECAY) * phase.steps  # after how many steps the learning rate is planned to fall
        # After how many steps P(answer) was first near, and first above `learn.stop_at`.
        self._near: int | None = None
        self._held: int | None = None
        for count in range(WINDOW, len(metrics) + 1):
            self.saw(metrics[:count])

    def saw(self, metrics: Sequence[StepMetrics]) -> None:
        """Take note of the last of ``metrics``, the steps since the phase began."""
        if len(metrics) < WINDOW or not self._phase.asks:
            return
        found = [mean_probability(metrics[-WINDOW:], question) for question in self._learned]
        if self._near is None and self._is_near(found, len(metrics)):
            self._near = len(metrics)
        threshold = self._learn.stop_at
        if self._held is None and threshold is not None and all(value > threshold for value in found):
            self._held = len(metrics)

    def _is_near(self, found: Sequence[float], taken: int) -> bool:
        left = self._phase.leaves_far and taken >= self._falls
        return all(value > NEAR or (left and value < FAR) for value in found)

    def steps(self, taken: int) -> int:
        """Return how many steps the phase takes, as far as is known after ``taken`` of them."""
        planned = self._phase.steps
        if self._learn.schedule == "constant":
            return min(self._held or planned, planned)
        if self._phase.extends and taken >= WINDOW and taken > self._falls:
            most = round(self._learn.extend * planned)
            planned = min(max(_with_decay(self._near), planned), most) if self._near else most
        return min(_with_decay(self._held), planned) if self._held else planned

    def learning_rate(self, taken: int) -> float:
        """Return the learning rate of the step after ``taken`` of them."""
        constant = self._learn.schedule == "constant"
        return self._phase.learning_rate * (1.0 if constant else rate_factor(taken, self.steps(taken)))


def _with_decay(steps: int) -> int:
    """Return how many steps a phase takes whose learning rate falls after ``steps`` of them."""
    return math.ceil(steps / (1 - DECAY))
