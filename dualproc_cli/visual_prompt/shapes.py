"""Signed distances and their anti-aliased coverage on a pixel grid.

Distances are in pixels, negative inside. Every shape parameter may be a float or a tensor [B, 1, 1], which
draws a batch of different shapes. The formulas are Inigo Quilez's 2D distance functions
(https://iquilezles.org/articles/distfunctions2d/).
"""

from typing import TypeAlias

import torch
from torch import Tensor

Number: TypeAlias = Tensor | float


def grid(height: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the pixel centres (x [1, H, W], y [1, H, W]), in pixels from the top left corner."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
    )
    return x[None], y[None]


def coverage(distance: Tensor) -> Tensor:
    """Return the share in [0, 1] of each pixel that is covered, from its centre's distance to the edge."""
    return (0.5 - distance).clamp(0, 1)


def stroke(distance: Tensor, width: Number) -> Tensor:
    """Return the coverage of a stroke ``width`` pixels wide along the edge; thinner than 1, it fades."""
    half = torch.as_tensor(width) / 2
    return torch.minimum((0.5 + half - distance.abs()).clamp(0, 1), (2 * half).clamp(max=1))


def band(offset: Tensor, thickness: Number) -> Tensor:
    """Return the coverage of an endless band around offset 0; its integral is exactly ``thickness``."""
    half = torch.as_tensor(thickness) / 2
    return (torch.minimum(offset + 0.5, half) - torch.maximum(offset - 0.5, -half)).clamp(0, 1)


def box(x: Tensor, y: Tensor, half_width: Number, half_height: Number) -> Tensor:
    """Return the distance to a box centred at the origin."""
    dx, dy = x.abs() - half_width, y.abs() - half_height
    outside = torch.sqrt(dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2 + 1e-9)
    return outside + torch.maximum(dx, dy).clamp(max=0)


def circle(x: Tensor, y: Tensor, radius: Number) -> Tensor:
    """Return the distance to a disc centred at the origin."""
    return torch.sqrt(x**2 + y**2 + 1e-9) - radius


def capsule(x: Tensor, y: Tensor, to_x: Number, to_y: Number, radius: Number) -> Tensor:
    """Return the distance to a line with round ends from the origin to (to_x, to_y)."""
    along = ((x * to_x + y * to_y) / (to_x * to_x + to_y * to_y + 1e-9)).clamp(0, 1)
    return circle(x - along * to_x, y - along * to_y, radius)


def gable(x: Tensor, y: Tensor, half_width: Number, height: Number) -> Tensor:
    """Return the distance to an isosceles triangle with its apex at (0, -height) and its base on y = 0.

    Beyond the corners, the result is a lower bound of the distance.
    """
    slope = torch.sqrt(torch.as_tensor(height * height + half_width * half_width))
    return torch.maximum((x.abs() * height - (y + height) * half_width) / slope, y)
