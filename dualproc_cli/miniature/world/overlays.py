"""Visual prompts laid over scenes at random, as the VLM of the miniature learns to read them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.render import Rendering
from dualproc_cli.miniature.world.scene import FAMILY_COLORS, NOBODY, OUTLINE, SIZE, Scene, dress
from dualproc_cli.visual_prompt import layers

KINDS = ("none", "horizontal", "vertical", "palette", "points", "box")
SHARES = torch.tensor([0.08, 0.19, 0.15, 0.09, 0.31, 0.18])
RED = torch.tensor([1.0, 0.0, 0.0])
PALETTE_SIZE = 0.12


@dataclass
class Overlays(Batched):
    """One visual prompt a picture; fields of other kinds hold meaningless numbers. Pixels, RGB in [0, 1]."""

    kind: Tensor  # [B] index into KINDS
    row: Tensor  # [B] of the horizontal line
    column: Tensor  # [B] of the vertical line
    thickness: Tensor  # [B] of either
    palette: Tensor  # [B, 3, 3]
    points: Tensor  # [B, 2, 2] A and B, (x, y)
    box: Tensor  # [B, 4] left, top, right, bottom

    @property
    def is_horizontal(self) -> Tensor:
        return self.kind == 1

    @property
    def is_vertical(self) -> Tensor:
        return self.kind == 2

    @property
    def is_palette(self) -> Tensor:
        return self.kind == 3

    @property
    def is_points(self) -> Tensor:
        return self.kind == 4

    @property
    def shows_both_points(self) -> Tensor:
        """There are points, and neither hides the other's letter."""
        apart = (self.points[:, 0] - self.points[:, 1]).norm(dim=1)
        return self.is_points & (apart > 2 * layers.POINT_RADIUS * SIZE)

    @property
    def is_box(self) -> Tensor:
        return self.kind == 5

    def lay_over(self, images: Tensor) -> Tensor:
        """The pictures [B, 3, H, W] with their visual prompts, drawn as a spec's are."""
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
    """Draw visual prompts so that every question about them is as often true as false."""
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
    # A line that only shows a thickness lies anywhere, mostly at the foot of the picture.
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
        kind=torch.multinomial(SHARES, count, replacement=True, generator=rng),
        row=row.clamp(3, SIZE - 1),
        column=column.clamp(3, SIZE - 3),
        thickness=thickness,
        palette=_sample_palettes(scene, rng),
        points=points,
        box=box,
    )


def _sample_palettes(scene: Scene, rng: torch.Generator) -> Tensor:
    """The scene's own colours, moved not at all, partly or all the way to another family or any colours."""
    count = len(scene)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=rng)

    family = FAMILY_COLORS[torch.randint(len(FAMILY_COLORS), (count,), generator=rng)]
    other = torch.where((uniform() < 0.5)[:, None, None], dress(family, scene.look), uniform(3, 3))
    draw = uniform()
    share = torch.where(draw < 0.45, 0.0, torch.where(draw < 0.75, 0.6 * uniform(), 1.0))
    which = torch.where((uniform() < 0.3)[:, None], (uniform(3) < 0.5).float(), torch.ones(3))
    moved = scene.colors + (share[:, None] * which)[..., None] * (other - scene.colors)
    # The sky pales towards the horizon and the ground darkens: people pick their swatches from either end.
    return (moved + 0.012 * torch.randn(count, 3, 3, generator=rng)).clamp(0, 1)
