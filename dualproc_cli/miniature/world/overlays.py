"""Random visual prompts over scenes, on which the miniature's VLM learns to read them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.render import Rendering
from dualproc_cli.miniature.world.scene import FAMILY_COLORS, NOBODY, OUTLINE, SIZE, Scene, apply_look
from dualproc_cli.visual_prompt import layers

KINDS = ("none", "horizontal", "vertical", "palette", "points", "box")
KIND_SHARES = torch.tensor([0.08, 0.17, 0.13, 0.20, 0.26, 0.16])
RED = torch.tensor([1.0, 0.0, 0.0])
PALETTE_SIZE = 0.12  # share of the picture's height


@dataclass
class Overlays(Batched):
    """One visual prompt for each of B pictures.

    Every field has numbers for every picture; only those of the picture's kind are used. Positions and sizes
    are in pixels, colours RGB in [0, 1].

    Attributes:
        kind: [B] index into KINDS.
        row: [B] middle of the horizontal line.
        column: [B] middle of the vertical line.
        thickness: [B] of either line.
        palette: [B, 3, 3] colours for sky, ground and subject.
        points: [B, 2, 2] the points A and B, each (x, y).
        box: [B, 4] left, top, right and bottom edge.
    """

    kind: Tensor
    row: Tensor
    column: Tensor
    thickness: Tensor
    palette: Tensor
    points: Tensor
    box: Tensor

    @property
    def is_horizontal(self) -> Tensor:
        """Whether each is a horizontal line. [B] bool."""
        return self.kind == 1

    @property
    def is_vertical(self) -> Tensor:
        """Whether each is a vertical line. [B] bool."""
        return self.kind == 2

    @property
    def is_palette(self) -> Tensor:
        """Whether each is a palette. [B] bool."""
        return self.kind == 3

    @property
    def is_points(self) -> Tensor:
        """Whether each is a pair of points. [B] bool."""
        return self.kind == 4

    @property
    def shows_both_points(self) -> Tensor:
        """Whether each is a pair of points of which neither hides the other's letter. [B] bool."""
        apart = (self.points[:, 0] - self.points[:, 1]).norm(dim=1)
        return self.is_points & (apart > 2 * layers.POINT_RADIUS * SIZE)

    @property
    def is_box(self) -> Tensor:
        """Whether each is a box. [B] bool."""
        return self.kind == 5

    def lay_over(self, images: Tensor) -> Tensor:
        """Lay the visual prompts over pictures [B, 3, H, W], drawn like those of a spec."""
        out = images.clone()
        size = (SIZE, SIZE)
        for kind in range(1, len(KINDS)):
            at = (self.kind == kind).nonzero()[:, 0]
            if len(at) == 0:
                continue
            red, thickness = RED.expand(len(at), 3), self.thickness[at] / SIZE
            if kind == 1:
                layer = layers.line(self.row[at] / SIZE, thickness, red, True, *size)
            elif kind == 2:
                layer = layers.line(self.column[at] / SIZE, thickness, red, False, *size)
            elif kind == 3:
                layer = layers.palette(self.palette[at], "bottom", PALETTE_SIZE, *size)
            elif kind == 4:
                layer = layers.points(self.points[at] / SIZE, ("A", "B"), red, *size)
            else:
                layer = layers.box_outline(self.box[at] / SIZE, red, *size)
            out[at] = torch.lerp(out[at], layer[:, :3], layer[:, 3:])
        return out


def sample_overlays(scene: Scene, rendering: Rendering, rng: torch.Generator) -> Overlays:
    """Sample visual prompts so that questions about them are about as often true as false."""
    count = len(scene)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=rng)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=rng)

    slot = ((scene.kind[:, 1] != NOBODY) & (uniform() < 0.5)).long()[:, None]
    x, base, scale = (value.gather(1, slot)[:, 0] for value in (scene.x, scene.base, scene.scale))
    middle = base - 10 * scale

    near, spread = uniform(), (SIZE * (0.1 + 0.8 * uniform()), SIZE * (0.06 + 0.88 * uniform()))
    row = torch.where(near < 0.45, scene.horizon + 1.0 * normal(), scene.horizon + 6 * normal())
    row = torch.where(near > 0.8, spread[0], row)
    # A quarter of the lines lie at the foot of the picture, like lines that only show a thickness.
    row = torch.where(uniform() < 0.25, SIZE * (0.88 + 0.1 * uniform()), row)
    column = torch.where(uniform() < 0.5, x + 1.5 * normal(), spread[1])

    wide = uniform()
    thickness = scene.outline + torch.where(wide < 0.38, 0.2, 1.3) * normal()
    thickness = torch.where(wide > 0.75, OUTLINE[0] + (OUTLINE[1] - OUTLINE[0]) * uniform(), thickness)
    thickness = thickness.clamp(OUTLINE[0], 1.05 * OUTLINE[1])
    left, top = x - scale * (13 + 18 * uniform() ** 2) + 1.5, middle - scale * (13 + 18 * uniform() ** 2)
    right, bottom = x + scale * (13 + 18 * uniform() ** 2) - 1.5, base + 1 + 8 * uniform()
    away = torch.stack([uniform() * 34, uniform() * 34], 1)
    away = torch.cat([away, away + 20 + 24 * uniform(2)], 1)
    at_random = (uniform() < 0.4)[:, None]
    box = torch.where(at_random, away, torch.stack([left, top, right, bottom], 1)).clamp(1, SIZE - 1)

    points = 4 + (SIZE - 8) * uniform(2, 2)
    on_subject = torch.stack([x, middle], 1)[:, None] + 4 * normal(2, 2)
    points = torch.where((uniform(2) < 0.35)[..., None], on_subject.clamp(4, SIZE - 4), points)
    return Overlays(
        kind=torch.multinomial(KIND_SHARES, count, replacement=True, generator=rng),
        row=row.clamp(3, SIZE - 1),
        column=column.clamp(3, SIZE - 3),
        thickness=thickness,
        palette=_sample_palettes(scene, rng),
        points=points,
        box=box,
    )


def _sample_palettes(scene: Scene, rng: torch.Generator) -> Tensor:
    """Sample palettes [B, 3, 3]: the scene's own colours, or all or one of them moved to others."""
    count = len(scene)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=rng)

    family = FAMILY_COLORS[torch.randint(len(FAMILY_COLORS), (count,), generator=rng)]
    other = torch.where((uniform() < 0.5)[:, None, None], apply_look(family, scene.look), uniform(3, 3))
    draw = uniform()
    share = torch.where(draw < 0.45, 0.0, torch.where(draw < 0.75, 0.6 * uniform(), 1.0))
    one = torch.randint(3, (count, 1), generator=rng) == torch.arange(3)
    which = torch.where((uniform() < 0.5)[:, None], one, torch.ones(3, dtype=torch.bool))
    moved = scene.colors + (share[:, None] * which)[..., None] * (other - scene.colors)
    # The noise stands for where a swatch is picked: the sky pales towards the horizon, the ground darkens.
    return (moved + 0.012 * torch.randn(count, 3, 3, generator=rng)).clamp(0, 1)
