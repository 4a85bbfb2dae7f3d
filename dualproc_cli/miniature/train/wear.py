"""Worn pictures: what a reader of generated pictures must see through."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLUR, NOISE, STAIN = 0.9, 0.08, 0.07


def wear(images: Tensor, rng: torch.Generator) -> Tensor:
    """A third of the pictures [B, 3, H, W] blurred, noisy or stained a little, each by its own amount."""
    count = len(images)
    which = torch.randint(9, (count,), generator=rng).view(-1, 1, 1, 1)
    amount = torch.rand(count, 1, 1, 1, generator=rng)
    blurred = torch.lerp(images, _blur(images, BLUR), amount)
    noisy = images + NOISE * amount * torch.randn(images.shape, generator=rng)
    spots = F.interpolate(torch.randn(count, 3, 8, 8, generator=rng), size=images.shape[-1], mode="bilinear")
    stained = images + STAIN * amount * spots
    worn = torch.where(
        which == 0, blurred, torch.where(which == 1, noisy, torch.where(which == 2, stained, images))
    )
    return worn.clamp(0, 1)


def _blur(images: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-2, 3).float()
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, 5).expand(3, 1, 1, 5)
    across = F.conv2d(F.pad(images, (2, 2, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(across, (0, 0, 2, 2), mode="replicate"), kernel.transpose(2, 3), groups=3)
