"""Judging scenes that were read off pictures: whether they reach a spec's goals, and other properties."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.measures.color import ciede2000, lab
from dualproc_cli.measures.statistic import high_frequency
from dualproc_cli.miniature.world.captions import parse
from dualproc_cli.miniature.world.goals import Goal
from dualproc_cli.miniature.world.language import OPEN_KINDS
from dualproc_cli.miniature.world.questions import (
    TOLERANCE,
    open_answers,
    palette_distance,
    seen_color_difference,
)
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NIGHT, NOBODY, SEA, SIZE, SUBJECTS, WINTER, Scene
from dualproc_cli.miniature.world.subjects import EXTENT
from dualproc_cli.spec import BoxPrompt, LinePrompt, PalettePrompt, PointsPrompt, rgb

# CIEDE2000 by which the worst of sky, ground and subject may differ from its colour. Scenes of one family
# differ by up to 8 (6.5 in 95 % of them), which is clearly another shade of the same colour; families by 28.
WORST_COLOR = 10.0
# CIEDE2000 by which the pixels of sky or ground may differ from an even colour. Of the base generator's
# pictures half are within 1.2, 95 % within 2.6 and all of 288 within 4.8.
UNEVEN = 5.0
# How much larger the residual of the base generator's own pictures is at night, whose stars are points, and
# with two subjects: in the median of 1,600 pictures it is .0271 and .0345, of the others .0217.
NIGHT_RESIDUAL, PAIR_RESIDUAL = 1.25, 1.6
DEPTH_MARGIN = 1.0  # rows: with a smaller difference, neither is nearer


def slack(goal: Goal, scene: Scene) -> Tensor:
    """Return how far inside its tolerance each scene is for a goal that can be judged.

    Returns:
        [B] in the unit of the kind (rows, pixels, CIEDE2000): below 0 where the kind is false, NaN where it
        is neither true nor false. It does not depend on `Goal.wanted`, whether the kind should be true.
    """
    if goal.kind in OPEN_KINDS:
        return _answer(scene, goal.kind, goal.answer)
    subject = goal.wording.kind.partition(" ")[2] if goal.wording else ""
    return _SLACK[goal.kind](scene, goal.visual_prompt, subject)


def meets(goal: Goal, scene: Scene) -> Tensor:
    """Return whether each scene [B] meets a goal; where the kind is neither true nor false, it does not."""
    inside = slack(goal, scene)
    return inside >= 0 if goal.wanted else inside < 0


def shows_subjects(scene: Scene, prompts: Sequence[str], asked: Sequence[Goal] = ()) -> Tensor:
    """Return whether each picture shows the subjects of its prompt, both the nearer and the farther one.

    Where the prompt's own subjects would not meet every goal of ``asked``, which are about subjects, the
    picture has to meet these goals instead.

    Returns:
        [B] bool, False for prompts outside the miniature's grammar.
    """
    parsed = [parse(prompt) or (NOBODY, NOBODY, 0) for prompt in prompts]
    kinds = torch.tensor([[near, far] for near, far, _ in parsed])
    shown = (scene.kind == kinds).all(1)
    if not asked:
        return shown
    meant = replace(scene, kind=kinds)
    agrees, met = (torch.stack([meets(goal, found) for goal in asked]).all(0) for found in (meant, scene))
    return torch.where(agrees, shown, met)


def palette_difference(scene: Scene, palette: Tensor) -> Tensor:
    """Return the largest CIEDE2000 [B] of sky, ground and subject to a palette [K, 3] in [0, 1].

    Each is compared with its colour of a palette of three, or else with the nearest one; the subject's does
    not count where it is not seen.
    """
    if len(palette) == 3:
        return palette_distance(scene, palette)
    return seen_color_difference(scene, ciede2000(scene.colors[:, :, None], palette).amin(2))


def unevenness(scene: Scene, images: Tensor) -> Tensor:
    """Return how far sky and ground of images [B, 3, 64, 64] are from even: [B] in CIEDE2000.

    It is the root mean square difference between the pixels and the scene's render over the sky or over the
    ground, whichever is larger. Pixels that subjects, outlines, lights or the horizon touch do not count.
    """
    drawn = render(scene)
    areas = torch.stack([1 - drawn.ground - drawn.subject.sum(1) - drawn.lights, drawn.ground], 1)
    hidden = -F.max_pool2d(-(areas > 0.99).float(), 3, stride=1, padding=1)  # away from every edge
    error = ciede2000(images.movedim(1, -1), drawn.images.movedim(1, -1)).square()[:, None]
    return ((hidden * error).sum((2, 3)) / hidden.sum((2, 3)).clamp(min=1)).sqrt().amax(1)


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
    """Return the root mean square distance [B] of images [B, 3, 64, 64] to the scenes read off them.

    It is that of a scene by day with one subject: what the base generator draws is further from scenes at
    night and from those of two subjects, and so its range for prompts of one kind would not do for another.
    """
    usual = torch.where(reading.scene.look == NIGHT, NIGHT_RESIDUAL, 1.0)
    usual[reading.scene.kind[:, 1] != NOBODY] = PAIR_RESIDUAL
    return reading.residual / usual


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
    wanted = torch.tensor([rgb(color) for color in palette.colors])
    return WORST_COLOR - palette_difference(scene, wanted)


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
    return _of(name, scene, scene.on) - 0.5  # NaN without the subject


def _exists(scene: Scene, _: object, name: str) -> Tensor:
    return _fact((scene.kind == SUBJECTS.index(name)).any(1))


def _front(scene: Scene, _: object, names: str) -> Tensor:
    near, far = (SUBJECTS.index(name) for name in names.split())
    both = torch.tensor([near, far])
    here = (scene.kind.sort(1).values == both.sort().values).all(1)
    return torch.where(here, _fact(scene.kind[:, 0] == near), torch.nan)


def _answer(scene: Scene, kind: str, answer: str) -> Tensor:
    """Return 0.5 where ``answer`` is the true one to an open kind, otherwise -0.5."""
    said = set(answer.split(" and "))  # "a house and a ball" does not say which is nearer
    return _fact(torch.tensor([set(true.split(" and ")) == said for true in open_answers(scene)[kind]]))


def _look(which: int) -> Callable[[Scene, object, str], Tensor]:
    return lambda scene, visual_prompt, subject: _fact(scene.look == which)


def _fact(truth: Tensor) -> Tensor:
    return truth.float() - 0.5


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
    "night": _look(NIGHT),
    "winter": _look(WINTER),
    "sea": _look(SEA),
    "two": lambda scene, visual_prompt, subject: _fact((scene.kind != NOBODY).all(1)),
    "exists": _exists,
    "front": _front,
}
