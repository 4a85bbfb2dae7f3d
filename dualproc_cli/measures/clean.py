"""Whether a picture is clean: as free of artefacts as the base generator's own pictures are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dualproc_cli.measures.measure import Measure

CLEAN = 0.95  # share of the base generator's own pictures that are clean, by definition
# Statistics whose value can also be too small: too little fine detail is blur.
TWO_SIDED = ("high-frequency",)
# Smallest half range: where no picture of the base has any of an artefact, a trace of it is still clean.
LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class CleanRange:
    """The range of a generator's own pictures in S statistics, `CLEAN` of which are inside all of it jointly.

    A picture's excess is max_s (v_s - m_s) / u_s, with the median m and the half range u up to the quantile
    `CLEAN` of the base's pictures; for `TWO_SIDED` statistics also (m_s - v_s) / l_s, with the half range l
    down to the quantile 1 - `CLEAN`. The largest excess that is clean is the quantile `CLEAN` of the base's.

    Attributes:
        middle: [S] medians.
        above: [S] half ranges upwards.
        below: [S] half ranges downwards; infinite for statistics with an upper side only.
        limit: the largest excess of a clean picture.
    """

    middle: Tensor
    above: Tensor
    below: Tensor
    limit: float

    @classmethod
    def of(cls, base: Tensor, two_sided: Tensor) -> Self:
        """Return the range of the base's values [N, S]; pictures with a NaN do not count.

        Args:
            base: values of the base generator's pictures.
            two_sided: [S] bool, whether a value can also be too small.
        """
        base = base[~base.isnan().any(1)]
        if not len(base):  # nothing can be clean without a range
            nothing = torch.full(two_sided.shape, float("nan"))
            return cls(nothing, nothing, nothing, float("nan"))
        low, middle, high = torch.quantile(base, torch.tensor([1 - CLEAN, 0.5, CLEAN]), dim=0)
        above, below = (high - middle).clamp(min=LEAST), (middle - low).clamp(min=LEAST)
        found = cls(middle, above, torch.where(two_sided, below, torch.inf), 0.0)
        return cls(found.middle, found.above, found.below, float(torch.quantile(found.excess(base), CLEAN)))

    def excess(self, values: Tensor) -> Tensor:
        """Return how far out [N] pictures with these values [N, S] are; NaN for those with a NaN."""
        beyond = values - self.middle
        return torch.maximum(beyond / self.above, -beyond / self.below).amax(1)

    def holds(self, values: Tensor) -> Tensor:
        """Return whether each picture with these values [N, S] is clean: [N] bool, False for NaN."""
        return self.excess(values) <= self.limit


def two_sided(measures: Sequence[Measure]) -> Tensor:
    """Return for each measure [S] whether its value can also be too small."""
    return torch.tensor([measure.name in TWO_SIDED for measure in measures])
