"""The part of a picture that a question is about, cut out of it differentiably."""

from typing import NamedTuple

from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.spec import RegionSpec

SMALLEST = 8  # pixels a side; a VLM sees nothing in a smaller picture


class Window(NamedTuple):
    """A rectangle of a picture, in pixels: rows ``top:bottom`` and columns ``left:right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top, self.right - self.left

    def cut(self, images: Tensor) -> Tensor:
        """Return the window of images [..., H, W], with an exact gradient inside it and zero elsewhere."""
        return images[..., self.top : self.bottom, self.left : self.right]


def window(region: RegionSpec | None, height: int, width: int, where: str) -> Window:
    """Return a region in pixels, its edges rounded to the nearest; None stands for the whole picture.

    Args:
        region: its edges are fractions of the picture.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        where: the question that the region belongs to, for the error.

    Raises:
        UserError: the region has fewer than 8 pixels a side.
    """
    region = region or RegionSpec()
    edges = (region.top * height, region.left * width, region.bottom * height, region.right * width)
    found = Window(*map(round, edges))
    rows, columns = found.size
    if min(rows, columns) < SMALLEST:
        raise UserError(
            f"{where}: region: {columns}x{rows} pixels of a {width}x{height} picture (expected at least "
            f"{SMALLEST}x{SMALLEST}); make the region or the picture larger"
        )
    return found
