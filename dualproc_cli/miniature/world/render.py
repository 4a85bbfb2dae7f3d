"""The renderer: draws scenes of the procedural world as anti-aliased pictures, vectorised over the batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.scene import NIGHT, SIZE, SUBJECTS, WINTER, Scene
from dualproc_cli.miniature.world.subjects import INK, SHAPES
from dualproc_cli.visual_prompt.shapes import circle, coverage, grid, stroke

SUN_RADIUS = 4.0
# Column in pixels, and share of the way from the top to the horizon.
STARS = ((5, 0.22), (14, 0.6), (23, 0.15), (33, 0.45), (43, 0.2), (51, 0.62), (60, 0.3))
MOON, SUN = torch.tensor([0.99, 0.98, 0.90]), torch.tensor([1.0, 0.90, 0.45])
GLOW = torch.tensor([[1.0, 0.93, 0.55]])
# Share of white in the sky at the horizon, and of black in the ground at the foot of the picture.
SKY_HAZE, GROUND_SHADE = 0.18, 0.12


@dataclass
class Rendering(Batched):
    """B pictures, and what is visible at each of their pixels as a share in [0, 1].

    Attributes:
        images: [B, 3, H, W] in [0, 1].
        subject: [B, 2, H, W] share of the nearer and of the farther subject.
        ground: [B, H, W] share of the ground.
        ink: [B, H, W] share of the outlines.
        lights: [B, H, W] share of the sun, or of the moon and the stars.
        closeness: [B, H, W] rows by which what is seen there stands below the horizon; 0 in the sky.
    """

    images: Tensor
    subject: Tensor
    ground: Tensor
    ink: Tensor
    lights: Tensor
    closeness: Tensor


def render(scene: Scene) -> Rendering:
    """Draw scenes from back to front: sky, sun or moon and stars, ground, farther subject, nearer subject."""
    count = len(scene)
    x, y = grid(SIZE, SIZE)
    horizon = _column(scene.horizon)
    ground = (y - horizon + 0.5).clamp(0, 1).expand(count, SIZE, SIZE)
    sky, lights = _sky(scene, x, y)
    images = torch.lerp(sky, _ground(scene, y), ground[:, None])
    subject = torch.zeros(count, 2, SIZE, SIZE)
    ink = torch.zeros(count, SIZE, SIZE)
    closeness = (y - horizon).clamp(min=0).expand(count, SIZE, SIZE)
    for slot in (1, 0):
        images, silhouette, outline = _draw_subjects(scene, slot, images, x, y)
        subject = subject * (1 - silhouette[:, None])
        subject[:, slot] = silhouette
        ink = torch.maximum(ink * (1 - silhouette), outline)
        closeness = torch.where(silhouette > 0.5, _column(scene.base[:, slot] - scene.horizon), closeness)
    unhidden = 1 - subject.sum(1)
    lights = lights * (1 - ground) * unhidden
    return Rendering(images.clamp(0, 1), subject, ground * unhidden, ink, lights, closeness)


def by_subject_color(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return pictures [B, 3, H, W] of scenes with black subjects, and what white ones would add to them.

    A render is linear in the subjects' colour: it is the first, and the second times the colour.
    """

    def drawn_in(color: Tensor) -> Tensor:
        return render(replace(scene, colors=torch.cat([scene.colors[:, :2], color], 1))).images

    own = scene.colors[:, 2:]
    black = drawn_in(torch.zeros_like(own))
    return black, drawn_in(torch.ones_like(own)) - black


def _sky(scene: Scene, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sky [B, 3, H, W] and the share of its lights [B, H, W]."""
    horizon = _column(scene.horizon)
    down = (y / horizon).clamp(0, 1)[:, None]
    sky = _color(scene.colors[:, 0])
    sky = sky + SKY_HAZE * down * (1 - sky)
    dx, dy = x - _column(scene.sun_x), y - 0.4 * horizon
    light = coverage(circle(dx, dy, SUN_RADIUS))
    stars = torch.zeros_like(light)
    if len(night := (scene.look == NIGHT).nonzero()[:, 0]):
        stars[night] = _stars(horizon[night], x, y)
        bite = coverage(circle(dx[night] - 2.2, dy[night] + 1.0, SUN_RADIUS - 0.4))
        light = light.index_put((night,), light[night] * (1 - bite))  # the moon is a crescent
        sky = torch.lerp(sky, torch.ones(()), stars[:, None])
    pale = ((scene.look == WINTER) | (scene.look == NIGHT))[:, None]
    sky = torch.lerp(sky, _color(torch.where(pale, MOON, SUN)), light[:, None])
    return sky, torch.maximum(light, stars)


def _stars(horizon: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the share of the stars [B, H, W] over horizons [B, 1, 1]."""
    each = [coverage(circle(x - column, y - share * horizon, 0.9)) for column, share in STARS]
    return torch.stack(each).amax(0)


def _ground(scene: Scene, y: Tensor) -> Tensor:
    horizon = _column(scene.horizon)
    down = ((y - horizon) / (SIZE - horizon)).clamp(0, 1)[:, None]
    return _color(scene.colors[:, 1]) * (1 - GROUND_SHADE * down)


def _draw_subjects(
    scene: Scene, slot: int, images: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Paint the subjects of one slot; returns the images, and the slot's silhouette and ink [B, H, W]."""
    images = images.clone()
    silhouette, ink = (torch.zeros(len(scene), SIZE, SIZE) for _ in range(2))
    for kind, name in enumerate(SUBJECTS):
        chosen = (scene.kind[:, slot] == kind).nonzero()[:, 0]
        if len(chosen) == 0:
            continue
        scale = _column(scene.scale[chosen, slot])
        at_x = (x - _column(scene.x[chosen, slot])) / scale
        at_y = (y - _column(scene.base[chosen, slot])) / scale
        on = _column(scene.on[chosen, slot]).float()
        shape = SHAPES[name](at_x, at_y, on, _color(scene.colors[chosen, 2]))
        picture = images[chosen]
        for distance, color in shape.paint:
            picture = torch.lerp(picture, color, coverage(distance * scale)[:, None])
        width = _column(scene.outline[chosen])
        edge = stroke(shape.edges * scale, width)
        picture = torch.lerp(picture, _color(INK.expand(1, 3)), edge[:, None])
        for distance, color in shape.marks:
            picture = torch.lerp(picture, color, coverage(distance * scale)[:, None])
        if shape.glow is not None:
            light = shape.glow * (1 - coverage(shape.silhouette * scale))
            picture = torch.lerp(picture, _color(GLOW), light[:, None])
        images[chosen] = picture
        silhouette[chosen] = coverage(shape.silhouette * scale - width / 2)
        ink[chosen] = edge
    return images, silhouette, ink


def _column(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1)


def _color(rgb: Tensor) -> Tensor:
    return rgb[:, :, None, None]
