"""Jitter: random changes to what the VLM sees while learning, which make it harder to fool.

An attack on a VLM depends on exact pixels; what a picture truly shows survives a small zoom, shift or blur.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.spec import JitterSpec

SHARPEST = 1e-3  # pixels: the standard deviation of a Gaussian that blurs nothing


def jittered(images: Tensor, jitter: JitterSpec, rng: torch.Generator) -> Tensor:
    """Return pictures [B, 3, H, W] in [0, 1], each zoomed, shifted and blurred by its own draw, with noise.

    The border is repeated where a change leaves a gap. Differentiable in the pictures. A setting of 0 changes
    nothing and draws nothing from ``rng``.
    """
    if jitter.zoom > 0:
        images = _zoomed(images, jitter.zoom, rng)
    if jitter.shift > 0:
        images = _shifted(images, jitter.shift, rng)
    if jitter.blur > 0:
        images = _blurred(images, jitter.blur, rng)
    if jitter.noise > 0:
        noise = torch.randn(images.shape, generator=rng, device=rng.device)
        images = (images + jitter.noise * noise.to(images)).clamp(0, 1)
    return images


def _zoomed(images: Tensor, zoom: float, rng: torch.Generator) -> Tensor:
    """Scale each picture by a factor from [1 - zoom, 1 + zoom] around a random point of it."""
    drawn = torch.rand(len(images), 3, generator=rng, device=rng.device).to(images)
    scale, fixed = 1 + zoom * (2 * drawn[:, :1] - 1), 2 * drawn[:, 1:] - 1
    # What is drawn at x lay at p + (x - p) / scale, in coordinates from -1 to 1.
    matrix = torch.zeros(len(images), 2, 3).to(images)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale[:, 0]
    matrix[:, :, 2] = fixed * (1 - 1 / scale)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _shifted(images: Tensor, shift: float, rng: torch.Generator) -> Tensor:
    """Shift each picture by whole pixels, up to the share ``shift`` of its sides."""
    batch, channels, height, width = images.shape
    indices = []
    for side in (height, width):
        most = round(shift * side)
        offset = torch.randint(-most, most + 1, (batch, 1), generator=rng, device=rng.device)
        indices.append((torch.arange(side, device=rng.device) + offset).clamp(0, side - 1).to(images.device))
    rows, columns = indices
    each = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _blurred(images: Tensor, blur: float, rng: torch.Generator) -> Tensor:
    """Blur each picture by a Gaussian, with a standard deviation from [0, blur] pixels."""
    batch, channels, height, width = images.shape
    sigma = blur * torch.rand(batch, 1, generator=rng, device=rng.device).to(images)
    radius = min(round(3 * blur) + 1, height - 1, width - 1)
    distance = torch.arange(-radius, radius + 1).to(images)
    kernel = torch.exp(-(distance**2) / (2 * sigma.clamp(min=SHARPEST) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    # A convolution's groups are the pictures' channels, so that each picture has its own kernel.
    planes = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel, groups=batch * channels)
    planes = F.conv2d(planes, kernel.transpose(2, 3), groups=batch * channels)
    return planes.view_as(images)
