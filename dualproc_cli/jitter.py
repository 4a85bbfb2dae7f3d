"""Jitter: random changes to what the VLM sees while learning, which make it harder to fool.

An attack on a VLM depends on exact pixels; what a picture truly shows survives a small zoom, shift or blur.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.spec import JitterSpec

SHARPEST = 1e-3  # pixels: the standard deviation of a Gaussian that blurs nothing


class MicroBatchRandom(torch.Generator):
    """The random numbers of a step, for some of its pictures: the same as if all were at hand.

    Every micro-batch starts from the same state, draws for the whole batch, and keeps its own rows.

    Attributes:
        rows: which pictures of the batch are at hand.
        total: the number of pictures in the batch.
    """

    rows: range
    total: int

    @classmethod
    def part(cls, state: Tensor, rows: range, total: int) -> "MicroBatchRandom":
        """Return random numbers that go on from ``state``, for ``rows`` of ``total`` pictures."""
        rng = cls()
        rng.set_state(state)
        rng.rows, rng.total = rows, total
        return rng


def drawn_for(rng: torch.Generator, count: int) -> tuple[int, Tensor | slice]:
    """Return for how many pictures to draw, and which of the draws belong to the ``count`` at hand.

    Several views of a picture are pictures too; the first views of all come first.
    """
    if not isinstance(rng, MicroBatchRandom):
        return count, slice(None)
    views = count // len(rng.rows)
    return views * rng.total, torch.arange(views * rng.total).view(views, -1)[:, rng.rows].flatten()


@dataclass(frozen=True)
class Room:
    """How far pictures may be shifted, in pixels; upwards and to the left is positive.

    Attributes:
        rows: the lowest and the highest shift of rows.
        columns: likewise of columns.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @classmethod
    def around(cls, layer: Tensor) -> "Room":
        """Return how far a visual prompt, RGBA [4, H, W], can be shifted without crossing the border.

        A line that is cut looks thinner, and the true answer is another. What lies at a border already may
        cross it: the border is repeated.
        """
        alpha = layer[3]
        return cls(_free(alpha.amax(1)), _free(alpha.amax(0)))


def _free(alpha: Tensor) -> tuple[int, int]:
    """Return the lowest and the highest shift that keeps inside what ``alpha`` [N] covers."""
    size, covered = len(alpha), (alpha > 0).nonzero()[:, 0].tolist()
    before, after = (covered[0], size - 1 - covered[-1]) if covered else (0, 0)
    return -(after or size), before or size


def jittered(images: Tensor, jitter: JitterSpec, rng: torch.Generator, room: Room | None = None) -> Tensor:
    """Return pictures [B, 3, H, W] in [0, 1], each zoomed, shifted and blurred by its own draw, with noise.

    The border is repeated where a change leaves a gap. Differentiable in the pictures. A setting of 0 changes
    nothing and draws nothing from ``rng``; ``room`` limits shifts and zooms.
    """
    if jitter.zoom > 0:
        images = _zoomed(images, jitter.zoom, rng, room)
    if jitter.shift > 0:
        images = _shifted(images, jitter.shift, rng, room)
    if jitter.blur > 0:
        images = _blurred(images, jitter.blur, rng)
    if jitter.noise > 0:
        drawn, own = drawn_for(rng, len(images))
        noise = torch.randn(drawn, *images.shape[1:], generator=rng, device=rng.device)[own]
        images = (images + jitter.noise * noise.to(images)).clamp(0, 1)
    return images


def _zoomed(images: Tensor, zoom: float, rng: torch.Generator, room: Room | None) -> Tensor:
    """Scale each picture by a factor from [1 - zoom, 1 + zoom] around a random point, within ``room``."""
    count, own = drawn_for(rng, len(images))
    drawn = torch.rand(count, 3, generator=rng, device=rng.device)[own].to(images)
    scale, fixed = 1 + zoom * (2 * drawn[:, :1] - 1), 2 * drawn[:, 1:] - 1
    if room:
        height, width = images.shape[2:]
        across = _within(fixed[:, 0], scale[:, 0], room.columns, width)
        fixed = torch.stack([across, _within(fixed[:, 1], scale[:, 0], room.rows, height)], 1)
    # What is drawn at x lay at p + (x - p) / scale, in coordinates from -1 to 1.
    matrix = torch.zeros(len(images), 2, 3).to(images)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale[:, 0]
    matrix[:, :, 2] = fixed * (1 - 1 / scale)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _within(point: Tensor, scale: Tensor, shifts: tuple[int, int], size: int) -> Tensor:
    """Return the points [B] in [-1, 1] nearest to ``point`` around which scaling crosses no border.

    What reaches from a to b, with room before and behind it, stays inside while (point - a) (scale - 1) <=
    room, and likewise behind.
    """
    growth = (scale - 1).clamp(min=1e-6)
    behind, before = (2 * abs(shift) / size if abs(shift) < size else torch.inf for shift in shifts)
    first, last = (-1 if room == torch.inf else room - 1 for room in (before, behind))
    return torch.minimum(torch.maximum(point, -last - behind / growth), first + before / growth)


def _shifted(images: Tensor, shift: float, rng: torch.Generator, room: Room | None) -> Tensor:
    """Shift each picture by whole pixels, up to the share ``shift`` of its sides and within ``room``."""
    batch, channels, height, width = images.shape
    count, own = drawn_for(rng, batch)
    indices = []
    limits = (room.rows, room.columns) if room else ((-height, height), (-width, width))
    for side, limit in zip((height, width), limits, strict=True):
        most = round(shift * side)
        offset = torch.randint(-most, most + 1, (count, 1), generator=rng, device=rng.device)[own]
        offset = offset.clamp(*limit)
        indices.append((torch.arange(side, device=rng.device) + offset).clamp(0, side - 1).to(images.device))
    rows, columns = indices
    each = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _blurred(images: Tensor, blur: float, rng: torch.Generator) -> Tensor:
    """Blur each picture by a Gaussian, with a standard deviation from [0, blur] pixels."""
    batch, channels, height, width = images.shape
    count, own = drawn_for(rng, batch)
    sigma = blur * torch.rand(count, 1, generator=rng, device=rng.device)[own].to(images)
    radius = min(round(3 * blur) + 1, height - 1, width - 1)
    distance = torch.arange(-radius, radius + 1).to(images)
    kernel = torch.exp(-(distance**2) / (2 * sigma.clamp(min=SHARPEST) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    # A convolution's groups are the pictures' channels, so that each picture has its own kernel.
    planes = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel, groups=batch * channels)
    planes = F.conv2d(planes, kernel.transpose(2, 3), groups=batch * channels)
    return planes.view_as(images)
