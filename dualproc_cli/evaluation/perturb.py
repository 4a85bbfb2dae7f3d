"""Small changes of a picture that a true change survives and a pattern made for the VLM may not."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import jpeg

from dualproc_cli.pictures import eight_bits

SHIFT = 1 / 64  # of the width, and of the height downwards: one pixel of the miniature's
NOISE = 0.02  # standard deviation
SMALLER = 0.75  # of the side, before the picture is enlarged again
JPEG_QUALITY = 75  # what programs save at unless they are told otherwise


def perturbed(images: Tensor) -> dict[str, Tensor]:
    """Return four slightly changed versions of images [N, 3, H, W] in [0, 1], each of the same shape.

    They are the same each time. The visual prompt is laid over the pictures later, so it does not move.
    """
    height, width = images.shape[-2:]
    down, right = (max(1, round(SHIFT * side)) for side in (height, width))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    border = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return {
        "shifted": F.pad(images, (right, 0, down, 0), mode="replicate")[..., :height, :width],
        "noisy": (images + NOISE * noise.to(images)).clamp(0, 1),
        "blurred": F.avg_pool2d(border, 3, stride=1),
        "resized": _resized(images, SMALLER),
    }


def lossy(images: Tensor) -> dict[str, Tensor]:
    """Return versions [N, 3, H, W] of images in [0, 1] as sharing leaves them: JPEG 75, half size and back.

    Fine patterns do not survive them, and neither do details of a picture that is small already.
    """
    return {
        f"JPEG {JPEG_QUALITY}": torch.stack([_jpeg(image) for image in images]).to(images),
        "half size": _resized(images, 0.5),
    }


def _jpeg(image: Tensor) -> Tensor:
    """Return a picture [3, H, W] as a JPEG file would hold it, on the CPU."""
    return jpeg(eight_bits(image), JPEG_QUALITY).float() / 255


def _resized(images: Tensor, factor: float) -> Tensor:
    """Make pictures [N, 3, H, W] smaller by a factor, and as large as they were again."""
    smaller = [max(1, round(factor * side)) for side in images.shape[-2:]]
    small = F.interpolate(images, smaller, mode="bilinear", antialias=True)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", antialias=True)
