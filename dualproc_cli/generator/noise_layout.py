"""How the noise of a pipeline is laid out: latents, frames of latents, or tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseLayout:
    """How the noise of a pipeline is laid out, to treat all of it as [B, C, H, W].

    Attributes:
        aspect: height over width of the picture.
        channels_last: whether the channels come after height and width, as in Kandinsky 5.
    """

    aspect: float
    channels_last: bool

    @classmethod
    def of(cls, sizes: Sequence[int], aspect: float) -> "NoiseLayout":
        """Return the layout of one picture's noise of the shape ``sizes``, without the batch."""
        last = len(sizes) > 2 and abs(sizes[-3] / sizes[-2] - aspect) < abs(sizes[-2] / sizes[-1] - aspect)
        return cls(aspect, last)

    def cells(self, noise: Tensor) -> Tensor:
        """Return noise of this layout as [B, C, H, W]; frames count as channels."""
        if noise.ndim == 3:  # tokens [B, N, C], row by row
            return noise.transpose(1, 2).unflatten(2, (self._rows(noise.shape[1]), -1))
        return (noise.movedim(-1, 1) if self.channels_last else noise).flatten(1, -3)

    def noise(self, cells: Tensor, shape: torch.Size) -> Tensor:
        """Return [B, C, H, W] as noise of this layout and of ``shape``; undoes `cells`."""
        if len(shape) == 3:
            return cells.flatten(2).transpose(1, 2)
        if self.channels_last:
            return cells.view(shape[0], shape[-1], *shape[1:-1]).movedim(1, -1)
        return cells.view(shape)

    def _rows(self, tokens: int) -> int:
        """Return the number of rows of a grid of tokens: the divisor that comes nearest to the aspect."""
        divisors = [rows for rows in range(1, tokens + 1) if tokens % rows == 0]
        return min(divisors, key=lambda rows: abs(rows * rows / tokens - self.aspect))
