"""How much smaller a large picture may be made before the VLM's processor makes it smaller itself."""

from math import sqrt

import torch
from PIL import Image

from dualproc_cli.vlm.chat import GRAY, encode
from dualproc_cli.vlm.load import Vlm

SMALL = 1024  # pixels a side; up to this, nothing is gained
# Pixels a side for each that the VLM sees. What it sees of a picture of noise then changes by less than 1 %
# of the range, about as much as by the rounding to 8 bits.
OVERSAMPLED = 4


def reduced(picture: Image.Image, factor: int) -> Image.Image:
    """Return ``picture`` with 1 / ``factor`` of its pixels a side."""
    if factor == 1:
        return picture
    size = round(picture.width / factor), round(picture.height / factor)
    return picture.resize(size, Image.Resampling.LANCZOS)


def reduction(vlm: Vlm, height: int, width: int) -> int:
    """Return the factor by which pictures of ``height`` x ``width`` pixels may be reduced; 1 for none.

    The VLM is then given inputs of the same shapes as from the whole picture, at least `OVERSAMPLED` pixels a
    side for each that it sees.
    """
    if height * width <= SMALL**2:
        return 1
    whole, seen = _inputs(vlm, height, width)
    # By the shorter side: some processors make a square of any picture.
    factor = int(min(height, width) * vlm.image_scale / (OVERSAMPLED * sqrt(seen)))
    while factor > 1 and _inputs(vlm, round(height / factor), round(width / factor))[0] != whole:
        factor //= 2
    return max(factor, 1)


def _inputs(vlm: Vlm, height: int, width: int) -> tuple[dict[str, torch.Size], int]:
    """Return the shapes of a message's inputs with such a picture, and how many pixels the VLM sees of it."""
    size = max(round(vlm.image_scale * width), 1), max(round(vlm.image_scale * height), 1)
    inputs = encode(vlm.processor, "?", [Image.new("RGB", size, GRAY)])
    pixels = sum(value.numel() for value in inputs.values() if value.is_floating_point())
    return {key: value.shape for key, value in inputs.items()}, max(pixels // 3, 1)
