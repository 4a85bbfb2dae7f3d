"""Scenes of the procedural world: their parameters, made from independent uniform numbers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.miniature.world import SIZE
from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.language import SUBJECTS

NOBODY = -1
LOOKS = ("day", "winter", "night", "sea")
DAY, WINTER, NIGHT, SEA = range(4)

FAMILY_COLORS = torch.tensor(  # [family, (sky, ground, subject), RGB] in [0, 1]
    [  # meadow, sunset, desert, lavender, harbour, mint, dusk, rose
        [[0.53, 0.76, 0.94], [0.45, 0.69, 0.32], [0.85, 0.33, 0.27]],
        [[0.97, 0.61, 0.38], [0.47, 0.26, 0.36], [0.33, 0.40, 0.68]],
        [[0.50, 0.82, 0.84], [0.91, 0.74, 0.45], [0.66, 0.32, 0.22]],
        [[0.91, 0.78, 0.92], [0.53, 0.40, 0.68], [0.96, 0.80, 0.36]],
        [[0.80, 0.83, 0.84], [0.36, 0.44, 0.52], [0.20, 0.62, 0.62]],
        [[0.98, 0.91, 0.68], [0.32, 0.64, 0.58], [0.95, 0.48, 0.42]],
        [[0.33, 0.36, 0.62], [0.20, 0.44, 0.40], [0.95, 0.66, 0.34]],
        [[0.98, 0.77, 0.75], [0.73, 0.34, 0.44], [0.38, 0.60, 0.48]],
    ]
)
COLOR_JITTER = 0.05  # how far a scene's brightness and warmth may be from its family's
DARKNESS = torch.tensor([0.06, 0.08, 0.20])
SNOW, WATER = torch.tensor([0.96, 0.97, 1.0]), torch.tensor([0.22, 0.50, 0.72])

HORIZON = (0.2, 0.8)  # of the height
OUTLINE = (0.5, 4.0)  # pixels

UNIFORMS = 19  # how many numbers in (0, 1) make a scene


@dataclass
class Scene(Batched):
    """The parameters of B scenes. Positions and sizes are in pixels.

    Fields of two columns describe the nearer subject (slot 0) and the farther one (slot 1).

    Attributes:
        kind: [B, 2] index into SUBJECTS, or NOBODY where there is no such subject.
        look: [B] index into LOOKS.
        horizon: [B] row of the horizon.
        colors: [B, 3, 3] sky, ground and subjects as they are drawn, RGB in [0, 1].
        outline: [B] width of the outlines.
        x: [B, 2] middle column of the subject.
        base: [B, 2] row that the subject stands on.
        scale: [B, 2] size of the subject; at 1 it is about 24 pixels high.
        on: [B, 2] bool, whether the subject's attribute of ATTRIBUTES is on.
        sun_x: [B] column of the sun or the moon.
    """

    kind: Tensor
    look: Tensor
    horizon: Tensor
    colors: Tensor
    outline: Tensor
    x: Tensor
    base: Tensor
    scale: Tensor
    on: Tensor
    sun_x: Tensor

    def __len__(self) -> int:
        """Return B."""
        return len(self.look)


def scene_from_uniforms(u: Tensor, kind: Tensor, look: Tensor) -> Scene:
    """Make scenes, choosing by random numbers whatever their prompts leave open.

    Args:
        u: [B, UNIFORMS] independent numbers in (0, 1).
        kind: [B, 2] the prompts' subjects, nearer first.
        look: [B] the prompts' season or hour.
    """
    horizon = SIZE * _between(u[:, 0], *HORIZON)
    # Three signs make one of eight families: a network learns them more easily than one number cut in eight.
    family = ((u[:, 1:4] > 0.5) * torch.tensor([1, 2, 4])).sum(1)
    pair = kind[:, 1] != NOBODY

    alone_x, alone_scale = _between(u[:, 5], 17, 47), _between(u[:, 6], 0.9, 1.3)
    alone_base = _between(u[:, 7], (horizon + 3).clamp(min=32), 61)
    near_x, near_scale = _between(u[:, 5], 15, 49), _between(u[:, 6], 0.85, 1.05)
    near_base = _between(u[:, 7], (horizon + 9).clamp(min=40), 61)
    # The farther subject stands towards the free side, higher, smaller and partly hidden.
    beside = torch.where(near_x < SIZE / 2, 1.0, -1.0) * _between(u[:, 8], 13, 22)
    far_scale = _between(u[:, 9], 0.62, 0.75)
    far_base = torch.maximum(near_base - _between(u[:, 10], 7, 11), horizon + 2)
    return Scene(
        kind=kind,
        look=look,
        horizon=horizon,
        colors=_colors(family, look, u[:, 11:17]),
        outline=_between(u[:, 4], *OUTLINE),
        x=torch.stack([torch.where(pair, near_x, alone_x), near_x + beside], 1),
        base=torch.stack([torch.where(pair, near_base, alone_base), far_base], 1),
        scale=torch.stack([torch.where(pair, near_scale, alone_scale), far_scale], 1),
        on=u[:, 17:19] > 0.5,
        sun_x=SIZE * _between(u[:, 12], 0.1, 0.9),
    )


def sample_scenes(count: int, generator: torch.Generator, pairs: float = 0.25) -> Scene:
    """Sample scenes of random prompts, a share ``pairs`` of them with two subjects."""
    kind, look = sample_prompts(count, generator, pairs)
    return scene_from_uniforms(torch.rand(count, UNIFORMS, generator=generator), kind, look)


def sample_prompts(count: int, generator: torch.Generator, pairs: float = 0.25) -> tuple[Tensor, Tensor]:
    """Sample what a prompt fixes: kind [count, 2] and look [count].

    A share ``pairs`` has two subjects, which differ and stand in daylight.
    """
    near = torch.randint(len(SUBJECTS), (count,), generator=generator)
    far = (near + torch.randint(1, len(SUBJECTS), (count,), generator=generator)) % len(SUBJECTS)
    pair = torch.rand(count, generator=generator) < pairs
    look = torch.randint(len(LOOKS), (count,), generator=generator)
    return torch.stack([near, torch.where(pair, far, NOBODY)], 1), torch.where(pair, DAY, look)


def with_random_colors(scene: Scene, share: float, generator: torch.Generator) -> Scene:
    """Give a ``share`` of the scenes any colours instead of a family's, tinted as their look shows them."""
    count = len(scene)
    anything = apply_look(torch.rand(count, 3, 3, generator=generator), scene.look)
    chosen = torch.rand(count, generator=generator) < share
    return replace(scene, colors=torch.where(chosen[:, None, None], anything, scene.colors))


def _between(number: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    return low + (high - low) * number


def _colors(family: Tensor, look: Tensor, u: Tensor) -> Tensor:
    brightness = (2 * u[:, :3] - 1) * COLOR_JITTER
    warmth = (2 * u[:, 3:6] - 1) * COLOR_JITTER
    colors = FAMILY_COLORS[family] + brightness[..., None] + torch.stack([warmth, 0 * warmth, -warmth], -1)
    return apply_look(colors, look)


def apply_look(colors: Tensor, look: Tensor) -> Tensor:
    """Tint colours [B, 3, 3] of families as their look shows them: snow, water, a dark sky."""

    def tint(color: Tensor, which: int, towards: Tensor, share: float) -> Tensor:
        return color + (share * (look == which))[:, None] * (towards - color)

    sky, ground, subject = colors.unbind(1)
    sky = tint(sky, NIGHT, DARKNESS, 0.7)
    ground = tint(ground, WINTER, SNOW, 0.6)
    ground = tint(ground, SEA, WATER, 0.6)
    ground = tint(ground, NIGHT, DARKNESS, 0.3)
    return torch.stack([sky, ground, subject], 1).clamp(0.02, 0.98)
