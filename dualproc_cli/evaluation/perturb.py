"""Small changes of a picture that a true change survives and a pattern made for the VLM may not."""

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 1 / 64  # of the width, and of the height downwards: one pixel of the miniature's
NOISE = 0.02  # standard deviation
SMALLER = 0.75  # of the side, before the picture is enlarged again


def perturbed(images: Tensor) -> dict[str, Tensor]:
    """Return four slightly changed versions of images [N, 3, H, W] in [0, 1], each of the same shape.

    They are the same each time. The visual prompt is laid over the pictures later, so it does not move.
    """
    height, width = images.shape[-2:]
    down, right = (max(1, round(SHIFT * side)) for side in (height, width))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    border = F.pad(images, (1, 1, 1, 1), mode="replicate")
    smaller = [round(SMALLER * side) for side in (height, width)]
    resized = F.interpolate(images, smaller, mode="bilinear", antialias=True)
    return {
        "shifted": F.pad(images, (right, 0, down, 0), mode="replicate")[..., :height, :width],
        "noisy": (images + NOISE * noise.to(images)).clamp(0, 1),
        "blurred": F.avg_pool2d(border, 3, stride=1),
        "resized": F.interpolate(resized, (height, width), mode="bilinear", antialias=True),
    }
