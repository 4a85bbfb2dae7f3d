"""Judging scenes that were read off pictures: whether they reach a spec's goals, and other properties."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.measures.color import ciede2000, lab
from dualproc_cli.measures.statistic import high_frequency
from dualproc_cli.miniature.world.captions import parse
from dualproc_cli.miniature.world.goals import Goal
from dualproc_cli.miniature.world.questions import TOLERANCE
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import FAMILY_COLORS, NOBODY, SIZE, SUBJECTS, Scene
from dualproc_cli.miniature.world.subjects import EXTENT
from dualproc_cli.spec import BoxPrompt, LinePrompt, PalettePrompt, PointsPrompt, rgb

SAME_FAMILY = 8.0  # CIEDE2000: a wanted palette this near to a family is that family
DEPTH_MARGIN = 1.0  # rows: with a smaller difference, neither is nearer


def slack(goal: Goal, scene: Scene) -> Tensor:
    """Return how far inside its tolerance each scene is for a goal that can be judged.

    Returns:
        [B] in the unit of the kind (rows, pixels, CIEDE2000): below 0 where the kind is false, NaN where it
        is neither true nor false. It does not depend on `Goal.wanted`, whether the kind should be true.
    """
    subject = goal.wording.kind.partition(" ")[2] if goal.wording else ""
    return _SLACK[goal.kind](scene, goal.visual_prompt, subject)


def shows_subjects(scene: Scene, prompts: Sequence[str]) -> Tensor:
    """Return whether each picture shows the subjects of its prompt, both the nearer and the farther one.

    Returns:
        [B] bool, False for prompts outside the miniature's grammar.
    """
    parsed = [parse(prompt) or (NOBODY, NOBODY, 0) for prompt in prompts]
    return (scene.kind == torch.tensor([[near, far] for near, far, _ in parsed])).all(1)


def distance_to_palette(scene: Scene, palette: Tensor, in_order: bool) -> Tensor:
    """Return the mean CIEDE2000 [B] of sky, ground and subject to a palette [K, 3] in [0, 1].

    They are compared ``in_order``, or each with the nearest colour.
    """
    if in_order:
        return ciede2000(scene.colors, palette).mean(1)
    return ciede2000(scene.colors[:, :, None], palette).amin(2).mean(1)


# Properties [B, D] of every picture; their spread over seeds shows what still varies.
PROPERTIES: dict[str, Callable[[Scene], Tensor]] = {
    "horizon": lambda scene: scene.horizon[:, None],
    "sky": lambda scene: lab(scene.colors[:, 0]),
    "ground": lambda scene: lab(scene.colors[:, 1]),
    "subject-color": lambda scene: lab(scene.colors[:, 2]),
    "line-weight": lambda scene: scene.outline[:, None],
    "place": lambda scene: scene.x[:, :1],
    "size": lambda scene: scene.scale[:, :1],
    "attribute": lambda scene: scene.on[:, :1].float(),
}


def residual(reading: Reading, images: Tensor) -> Tensor:
    """Return the root mean square distance [B] of images [B, 3, 64, 64] to the scenes read off them."""
    return reading.residual


def texture(reading: Reading, images: Tensor) -> Tensor:
    """Return the high-frequency energy [B] of images [B, 3, 64, 64] in excess of the scenes' own."""
    return high_frequency(images) - high_frequency(render(reading.scene).images)


def _horizon(scene: Scene, line: LinePrompt, _: str) -> Tensor:
    return TOLERANCE["horizon"] - (scene.horizon - SIZE * line.position).abs()


def _horizon_above(scene: Scene, line: LinePrompt, _: str) -> Tensor:
    return SIZE * line.position - scene.horizon


def _line_weight(scene: Scene, line: LinePrompt, _: str) -> Tensor:
    return TOLERANCE["line-weight"] - (scene.outline - SIZE * line.thickness).abs()


def _thicker(scene: Scene, line: LinePrompt, _: str) -> Tensor:
    return scene.outline - SIZE * line.thickness


def _palette(scene: Scene, palette: PalettePrompt, _: str) -> Tensor:
    """Return how much nearer the palette is than the nearest family of the world, in CIEDE2000."""
    wanted = torch.tensor([rgb(color) for color in palette.colors])
    in_order = len(wanted) == 3
    others = FAMILY_COLORS
    if in_order:
        others = others[ciede2000(others, wanted).mean(1) > SAME_FAMILY]
    nearest = torch.stack([distance_to_palette(scene, family, in_order) for family in others]).amin(0)
    return nearest - distance_to_palette(scene, wanted, in_order)


def _closer(scene: Scene, prompt: PointsPrompt, _: str) -> Tensor:
    """Return by how many rows what is at point A stands nearer than what is at point B."""
    points = {point.label.lower(): point for point in prompt.points}
    closeness = render(scene).closeness
    at_a, at_b = (
        closeness[:, min(int(point.y * SIZE), SIZE - 1), min(int(point.x * SIZE), SIZE - 1)]
        for point in (points["a"], points["b"])
    )
    rows = at_a - at_b
    return torch.where(rows.abs() >= DEPTH_MARGIN, rows, torch.nan)


def _inside(scene: Scene, box: BoxPrompt, name: str) -> Tensor:
    """Return the pixels between a subject and the nearest edge of the box, plus the tolerance."""
    x, base, scale = (_of(name, scene, value) for value in (scene.x, scene.base, scene.scale))
    half, tall = (extent * scale for extent in EXTENT[name])
    room = [
        x - half - SIZE * box.left,
        SIZE * box.right - x - half,
        base - tall - SIZE * box.top,
        SIZE * box.bottom - base,
    ]
    return torch.stack(room).amin(0) + TOLERANCE["inside"]


def _on_line(scene: Scene, line: LinePrompt, name: str) -> Tensor:
    return TOLERANCE["on-line"] - (_of(name, scene, scene.x) - SIZE * line.position).abs()


def _left(scene: Scene, line: LinePrompt, name: str) -> Tensor:
    return SIZE * line.position - _of(name, scene, scene.x)


def _attribute(scene: Scene, _: object, name: str) -> Tensor:
    return _of(name, scene, scene.on) - 0.5


def _of(name: str, scene: Scene, values: Tensor) -> Tensor:
    """Return the value [B] of the subject of that name, out of [B, 2]; NaN if it is not in the picture."""
    here = scene.kind == SUBJECTS.index(name)
    value = torch.where(here[:, 0], values[:, 0], values[:, 1]).float()
    return torch.where(here.any(1), value, torch.nan)


# By kind: a function of the scene, a visual prompt that suits the kind, and the subject's name.
_SLACK: dict[str, Callable[[Scene, Any, str], Tensor]] = {
    "horizon": _horizon,
    "horizon-above": _horizon_above,
    "line-weight": _line_weight,
    "thicker": _thicker,
    "palette": _palette,
    "closer": _closer,
    "inside": _inside,
    "on-line": _on_line,
    "left": _left,
    "attribute": _attribute,
}
