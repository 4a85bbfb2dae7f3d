"""Augmentation with disturbances like those of generated pictures, which a network has to ignore."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.miniature.training.corruptions import root_mean_square

BLUR = 0.9  # largest standard deviation in pixels
NOISE, STAIN, BAND = 0.08, 0.07, 0.08  # largest standard deviations of what is added, of a range of 1
IGNORED_NOISE = (
    0.03  # standard deviation of pixel noise that leaves a picture clean; `learn.jitter` adds as much
)
NOISY = 1  # index of the noise among the kinds of disturbance
TOKEN = 8  # pixels that a token of the generator covers


def augment(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blur, stain, band or add noise to half of the pictures [B, 3, H, W], each by a random amount.

    Returns:
        The pictures, and the root mean square [B] of what spoils each, less the noise that does not matter.
    """
    count, size = len(images), images.shape[-1]
    which = torch.randint(10, (count,), generator=rng).view(-1, 1, 1, 1)
    amount = torch.rand(count, 1, 1, 1, generator=rng)
    spots = F.interpolate(torch.randn(count, 3, 8, 8, generator=rng), size=size, mode="bilinear")
    kinds = [
        torch.lerp(images, _blur(images, BLUR), amount),
        images + NOISE * amount * torch.randn(images.shape, generator=rng),
        images + STAIN * amount * spots,
        images + BAND * amount * _bands(count, size, rng),
        images + BAND * amount * _bands(count, size, rng).transpose(2, 3),
    ]
    augmented = images
    for index, kind in enumerate(kinds):
        augmented = torch.where(which == index, kind, augmented)
    augmented = augmented.clamp(0, 1)
    change = root_mean_square(augmented - images).square()
    ignored = torch.where(which.flatten() == NOISY, IGNORED_NOISE**2, 0.0)
    return augmented, (change - ignored).clamp(min=0).sqrt()


def _bands(count: int, size: int, rng: torch.Generator) -> Tensor:
    """Draw bands [B, 3, H, W] as high as a token of the generator, easily mistaken for horizons."""
    rows = torch.arange(size // TOKEN + 1).repeat_interleave(TOKEN)
    phase = int(torch.randint(TOKEN, (), generator=rng))
    levels = torch.randn(count, 3, size // TOKEN + 1, 1, generator=rng)
    smooth = F.interpolate(torch.randn(count, 3, 3, 1, generator=rng), size=(size, 1), mode="bilinear")
    return (levels[:, :, rows[phase : phase + size]] + 1.5 * smooth).expand(-1, -1, -1, size)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian of ``sigma`` pixels, cut off at 2 pixels."""
    offsets = torch.arange(-2, 3).float()
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, 5).expand(3, 1, 1, 5)
    across = F.conv2d(F.pad(images, (2, 2, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(across, (0, 0, 2, 2), mode="replicate"), kernel.transpose(2, 3), groups=3)
