"""The shapes of the four subjects in units of their scale. They stand on (0, 0) and extend to negative y."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.visual_prompt.shapes import box, capsule, circle, gable

INK = torch.tensor([0.07, 0.06, 0.10])
LIT, UNLIT = torch.tensor([1.0, 0.91, 0.48]), torch.tensor([0.17, 0.19, 0.27])
BROWN = torch.tensor([0.45, 0.30, 0.20])
# Half the width, and the height, of each subject without its outline.
EXTENT = {"house": (12.5, 24.5), "tree": (10.9, 26.1), "ball": (10.5, 21.0), "lamp": (6.8, 28.5)}
SHADE = 0.62  # roofs, doors and caps have the subject's colour times this


@dataclass
class Shape:
    """How to draw subjects of one kind.

    Distances [B, H, W] are negative inside a shape; colours are [B or 1, 3, 1, 1].

    Attributes:
        paint: distance and colour of the parts that are filled, from back to front.
        edges: distance to the lines that the outline follows.
        marks: distance and colour of the parts that are painted over the outlines, so that even thick ones do
            not hide the attribute.
        silhouette: distance to the whole subject.
        glow: [B, H, W] light around the subject in [0, 1]; None if it sheds none.
    """

    paint: list[tuple[Tensor, Tensor]]
    edges: Tensor
    marks: list[tuple[Tensor, Tensor]]
    silhouette: Tensor
    glow: Tensor | None = None


def house(x: Tensor, y: Tensor, lit: Tensor, color: Tensor) -> Shape:
    """Shape a gabled house; its window is lit or dark."""
    body, roof = box(x, y + 7, 9.5, 7), gable(x, y + 12.5, 12.5, 12)
    chimney = box(x - 6, y + 21, 1.7, 3.5)
    door, window = box(x + 4.2, y + 4.2, 2.5, 4.2), box(x - 4, y + 7, 3, 3)
    whole = _union(body, roof, chimney)
    return Shape(
        paint=[(chimney, SHADE * color), (body, color), (roof, SHADE * color)],
        edges=_union(_outside(chimney, roof), body.abs(), roof.abs()),
        marks=[(door, SHADE * color), (window, _choose(lit, LIT, UNLIT))],
        silhouette=whole,
    )


def tree(x: Tensor, y: Tensor, bare: Tensor, color: Tensor) -> Shape:
    """Shape a tree with a round crown or, if bare, with five branches."""
    trunk = box(x, y + 6, 1.9, 6)
    crown = _union(circle(x, y + 18.5, 7.6), circle(x + 5.5, y + 14, 5.4), circle(x - 5.5, y + 14, 5.4))
    branches = _union(
        capsule(x, y + 9, 0, -16, 1.3),
        capsule(x, y + 10, -9.5, -8.5, 1.2),
        capsule(x, y + 10, 9.5, -8.5, 1.2),
        capsule(x, y + 15, -6, -9.5, 1.1),
        capsule(x, y + 15, 6, -9.5, 1.1),
    )
    whole = torch.where(bare > 0.5, _union(trunk, branches), _union(trunk, crown))
    leafy_edges = _union(_outside(trunk, crown), crown.abs())
    far = torch.full_like(crown, 99.0)
    return Shape(
        paint=[
            (trunk, _column(BROWN)),
            (torch.where(bare > 0.5, branches, far), _column(BROWN)),
            (torch.where(bare > 0.5, far, crown), color),
        ],
        edges=torch.where(bare > 0.5, whole.abs(), leafy_edges),
        marks=[],
        silhouette=whole,
    )


def ball(x: Tensor, y: Tensor, smiling: Tensor, color: Tensor) -> Shape:
    """Shape a ball with a face, smiling or sad."""
    disc = circle(x, y + 10.5, 10.5)
    eyes = _union(circle(x + 3.8, y + 13.2, 1.6), circle(x - 3.8, y + 13.2, 1.6))
    smile = torch.maximum(circle(x, y + 9.5, 4.8).abs() - 0.95, 8.3 - (y + 16.0))
    frown = torch.maximum(circle(x, y + 3.6, 4.8).abs() - 0.95, (y + 3.6) + 1.6)
    mouth = torch.where(smiling > 0.5, smile, frown)
    return Shape(
        paint=[(disc, color)],
        edges=disc.abs(),
        marks=[(eyes, _column(INK)), (mouth, _column(INK))],
        silhouette=disc,
    )


def lamp(x: Tensor, y: Tensor, lit: Tensor, color: Tensor) -> Shape:
    """Shape a street lamp, lit or not."""
    pole, foot = box(x, y + 8, 1.5, 8), box(x, y + 1.2, 4.5, 1.2)
    head, cap = box(x, y + 19.5, 4.8, 4.8), gable(x, y + 24, 6.8, 4.5)
    pane = box(x, y + 19.5, 3.4, 3.4)
    whole = _union(pole, foot, head, cap)
    glow = 0.7 * lit * torch.exp(-(x**2 + (y + 19.5) ** 2) / (2 * 8.0**2))
    return Shape(
        paint=[(_union(pole, foot), color), (head, SHADE * color), (cap, SHADE * color)],
        edges=_union(_outside(_union(pole, foot), head), head.abs(), cap.abs()),
        marks=[(pane, _choose(lit, LIT, UNLIT))],
        silhouette=whole,
        glow=glow,
    )


SHAPES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Shape]] = {
    "house": house,
    "tree": tree,
    "ball": ball,
    "lamp": lamp,
}


def _union(*distances: Tensor) -> Tensor:
    return torch.stack(distances).amin(0)


def _outside(shape: Tensor, cover: Tensor) -> Tensor:
    """Return the distance to the edge of ``shape`` where ``cover`` does not hide it."""
    return torch.maximum(shape.abs(), -cover)


def _column(rgb: Tensor) -> Tensor:
    return rgb.view(1, 3, 1, 1)


def _choose(on: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(on[:, None] > 0.5, _column(yes), _column(no))
