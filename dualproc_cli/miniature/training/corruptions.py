"""Corruptions like those of pictures that fooled a VLM: blurs, bars, rainbows, bands, ghosts."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

WEAKEST = 0.15  # a corruption's share of the picture where it is, at least
Region = tuple[Tensor, Tensor]  # what is drawn [B, 3, H, W], and where [B, 1, H, W] as a share in [0, 1]


def corrupt(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Corrupt pictures [B, 3, H, W] in [0, 1], each in a random way and to a random degree.

    Returns:
        The pictures, and the root mean square [B] of what was changed in each.
    """
    count = len(images)
    kind = torch.randint(len(_KINDS), (count,), generator=rng).view(-1, 1, 1, 1)
    strength = WEAKEST + (1 - WEAKEST) * torch.rand(count, 1, 1, 1, generator=rng)
    corrupted = images
    for index, draw in enumerate(_KINDS):
        drawn, where = draw(images, rng)
        corrupted = torch.where(kind == index, torch.lerp(images, drawn, strength * where), corrupted)
    corrupted = corrupted.clamp(0, 1)
    return corrupted, root_mean_square(corrupted - images)


def root_mean_square(difference: Tensor) -> Tensor:
    """Return the root mean square [B] of [B, C, H, W]."""
    return difference.square().mean((1, 2, 3)).sqrt()


def _blur(images: Tensor, rng: torch.Generator) -> Region:
    """Blur by about 3 to 10 pixels."""
    once = _smooth(images, 5)
    far = _smooth(once, 15)
    return torch.where(_uniform(images, rng) < 0.5, once, far), _somewhere(images, rng)


def _gray(images: Tensor, rng: torch.Generator) -> Region:
    """Draw a gray, either the picture's own or any."""
    own = images.mean((1, 2, 3), keepdim=True)
    gray = torch.where(_uniform(images, rng) < 0.5, own, _uniform(images, rng))
    return gray.expand_as(images), _somewhere(images, rng)


def _bar(images: Tensor, rng: torch.Generator) -> Region:
    """Draw a dark or coloured bar along the lower edge, seldom along the upper one."""
    _, y = _grid(images)
    inside = (y > 1 - 0.03 - 0.25 * _uniform(images, rng)).float()
    inside = torch.where(_uniform(images, rng) < 0.8, inside, inside.flip(2))
    color = torch.rand(len(images), 3, 1, 1, generator=rng)
    return (color * (_uniform(images, rng) < 0.3)).expand_as(images), inside.expand(-1, -1, -1, y.shape[2])


def _rainbow(images: Tensor, rng: torch.Generator) -> Region:
    """Let the colours run through the hues, brightness kept in part."""
    x, y = _grid(images)
    turns = [4 * _uniform(images, rng) - 2 for _ in range(2)]
    phase = turns[0] * x + turns[1] * y + _uniform(images, rng)
    hue = 0.5 + 0.5 * torch.cos(2 * math.pi * (phase + torch.tensor([0, 1 / 3, 2 / 3]).view(1, 3, 1, 1)))
    light = images.mean(1, keepdim=True)
    return torch.lerp(hue, hue * light * 1.5, _uniform(images, rng)), _somewhere(images, rng)


def _bands(images: Tensor, rng: torch.Generator) -> Region:
    """Draw horizontal bands 2 to 12 pixels high, of other brightness or colour."""
    count, size = len(images), images.shape[2]
    levels = torch.randn(count, 3, 32, 1, generator=rng)
    levels = torch.where(_uniform(images, rng) < 0.6, levels[:, :1], levels)
    _, y = _grid(images)
    index = (size * y / (2 + 10 * _uniform(images, rng))).long().clamp(max=31)
    drawn = images + 0.3 * levels.gather(2, index.expand(count, 3, size, 1))
    return drawn, _somewhere(images, rng)


def _ghost(images: Tensor, rng: torch.Generator) -> Region:
    """Let another picture shine through, or the same one from elsewhere."""
    down, across = (int(torch.randint(8, 57, (), generator=rng)) for _ in range(2))
    moved = torch.where(_uniform(images, rng) < 0.5, images.roll(down, 2), images.roll(across, 3))
    other = torch.where(_uniform(images, rng) < 0.5, images.roll(1, 0), moved)
    return torch.lerp(images, other, 0.8), _somewhere(images, rng)


def _texture(images: Tensor, rng: torch.Generator) -> Region:
    """Add a checkerboard, a grid or coarse noise."""
    size = images.shape[2]
    x, y = (
        ((size * place).long() // 2 ** int(torch.randint(4, (), generator=rng))) % 2
        for place in _grid(images)
    )
    board, lines = (x ^ y).float(), (x & y).float()
    pattern = torch.where(_uniform(images, rng) < 0.5, board, lines) - 0.5
    coarse = F.interpolate(torch.randn(len(images), 3, size // 2, size // 2, generator=rng), size=size)
    pattern = torch.where(_uniform(images, rng) < 0.7, pattern, coarse)
    return images + 0.5 * _uniform(images, rng) * pattern, _somewhere(images, rng)


_KINDS: list[Callable[[Tensor, torch.Generator], Region]] = [
    _blur, _gray, _bar, _rainbow, _bands, _ghost, _texture
]  # fmt: skip


def _somewhere(images: Tensor, rng: torch.Generator) -> Tensor:
    """Draw regions [B, 1, H, W]: the whole picture, or its upper or its lower part, or a rectangle."""
    x, y = _grid(images)
    draw = _uniform(images, rng)
    edges = [torch.cat([_uniform(images, rng) for _ in range(2)], 1).sort(1).values for _ in range(2)]
    columns, rows = (
        (place >= side[:, :1] - 0.05) & (place <= side[:, 1:] + 0.05)
        for place, side in zip((x, y), edges, strict=True)
    )
    row = edges[1][:, :1]
    parts = torch.where(draw < 0.55, y < row, torch.where(draw < 0.7, y >= row, rows & columns))
    return ((draw < 0.35) | parts).float()


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the pixels' middles are in [0, 1]: x [1, 1, 1, W] and y [1, 1, H, 1]."""
    height, width = images.shape[2:]
    x, y = ((torch.arange(side) + 0.5) / side for side in (width, height))
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def _uniform(images: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a number in (0, 1) for each picture, [B, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, generator=rng)


def _smooth(images: Tensor, side: int) -> Tensor:
    for _ in range(3):
        images = F.avg_pool2d(images, side, stride=1, padding=side // 2, count_include_pad=False)
    return images
