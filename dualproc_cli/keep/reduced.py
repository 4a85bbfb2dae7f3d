"""Pictures reduced to a size at which what is compared is still seen."""

from torch import Tensor
from torch.nn import functional as F


def reduced(images: Tensor, largest: int) -> Tensor:
    """Return pictures [B, C, H, W] whose longer side is ``largest`` pixels, or as they are if it is shorter.

    Each pixel is the mean of those that it stands for.
    """
    height, width = images.shape[-2:]
    factor = max(height, width) / largest
    if factor <= 1:
        return images
    return F.adaptive_avg_pool2d(images, (max(round(height / factor), 1), max(round(width / factor), 1)))
