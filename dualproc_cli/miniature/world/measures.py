"""Independent measures: has a control really been learned? Judged on the pixels, without the VLM.

Every measure answers, for each picture, whether what the spec asked for is there. All of them look at one
Reading: the scene that a small network of its own reads off the picture, refined until its render fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.errors import UserError
from dualproc_cli.measures.color import ciede2000, lab
from dualproc_cli.miniature.world.captions import parse
from dualproc_cli.miniature.world.questions import TOLERANCE, WORDINGS, Wording
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import FAMILY_COLORS, NOBODY, SIZE, SUBJECTS, Scene
from dualproc_cli.miniature.world.subjects import EXTENT
from dualproc_cli.spec import (
    BoxPrompt,
    LinePrompt,
    PalettePrompt,
    PointSpec,
    PointsPrompt,
    Question,
    VisualPromptSpec,
    rgb,
)

SAME_FAMILY = 8.0  # CIEDE2000: a wanted palette this near to a family is that family
DEPTH_MARGIN = 1.0  # rows: what stands less apart is neither nearer nor farther

# The kinds of question that a measure judges, by the first word of the kind.
KINDS = {
    "horizon": ("horizon", "horizon-above"),
    "palette": ("palette",),
    "line-weight": ("line-weight", "thicker"),
    "depth": ("closer",),
    "composition": ("inside", "on-line", "left"),
    "attributes": ("attribute",),
}
_ASKED = {wording.text.lower(): wording for wording in WORDINGS}


@dataclass(frozen=True)
class Goal:
    """What a spec's question wants of the pictures."""

    question: Question
    visual_prompt: VisualPromptSpec | None

    @property
    def wording(self) -> Wording | None:
        """The question in the miniature's language, None for any other."""
        return _ASKED.get(" ".join(self.question.question.lower().split()))

    @property
    def wanted(self) -> bool | None:
        """Whether the kind should be true: Yes to it, or No to its opposite. None for any other answer."""
        answer = self.question.answer.strip(" .!").lower()
        if self.wording is None or answer not in ("yes", "no"):
            return None
        return (answer == "yes") == (self.wording.sign > 0)


def success(name: str, reading: Reading, goals: Sequence[Goal], prompts: Sequence[str]) -> Tensor:
    """Whether each picture meets every goal that the named measure can judge. [B] bool.

    Raises:
        UserError: no goal is one that the measure can judge.
    """
    if name == "subject":
        return shows_subjects(reading.scene, prompts)
    return torch.stack([is_met(goal, reading.scene) for goal in judged(name, goals)]).all(0)


def judged(name: str, goals: Sequence[Goal]) -> list[Goal]:
    """The goals that the named measure can judge.

    Raises:
        UserError: there are none.
    """
    found = [
        goal
        for goal in goals
        if goal.wording and goal.wording.kind.split()[0] in KINDS[name] and slack(goal) is not None
    ]
    if not found:
        example = next(wording.text for wording in WORDINGS if wording.kind.split()[0] in KINDS[name])
        raise UserError(
            f"evaluate.measures: {name}: no question that it can judge; expected one like {example!r}, "
            "answered Yes or No, with the visual prompt that it speaks of"
        )
    return found


def is_met(goal: Goal, scene: Scene) -> Tensor:
    """Whether the expected answer is true of each scene. [B] bool; in doubt, neither Yes nor No is."""
    margin = slack(goal)
    if margin is None:
        raise ValueError(f"question {goal.question.name!r} cannot be judged")
    return margin(scene) >= 0 if goal.wanted else margin(scene) < 0


def slack(goal: Goal) -> Callable[[Scene], Tensor] | None:
    """How far inside its tolerance a scene is for the goal's kind of question; None if that cannot be judged.

    The function returned gives [B]: below 0 where the kind is false, NaN where it is neither true nor false.
    """
    if goal.wording is None or goal.wanted is None:
        return None
    match goal.wording.kind.split(), goal.visual_prompt:
        case ["horizon"], LinePrompt(orientation="horizontal", position=row):
            return lambda scene: TOLERANCE["horizon"] - (scene.horizon - SIZE * row).abs()
        case ["horizon-above"], LinePrompt(orientation="horizontal", position=row):
            return lambda scene: SIZE * row - scene.horizon
        case ["line-weight"], LinePrompt(thickness=thickness):
            return lambda scene: TOLERANCE["line-weight"] - (scene.outline - SIZE * thickness).abs()
        case ["thicker"], LinePrompt(thickness=thickness):
            return lambda scene: scene.outline - SIZE * thickness
        case ["palette"], PalettePrompt(colors=colors):
            wanted = torch.tensor([rgb(color) for color in colors])
            return lambda scene: _palette_slack(scene, wanted)
        case ["closer"], PointsPrompt(points=points):
            labelled = {point.label.lower(): point for point in points}
            if {"a", "b"} <= labelled.keys():
                return lambda scene: _depth_slack(scene, labelled["a"], labelled["b"])
        case ["inside", name], BoxPrompt() as box:
            return lambda scene: _box_slack(scene, name, box)
        case ["on-line", name], LinePrompt(orientation="vertical", position=column):
            return lambda scene: TOLERANCE["on-line"] - (_of(name, scene, scene.x) - SIZE * column).abs()
        case ["left", name], LinePrompt(orientation="vertical", position=column):
            return lambda scene: SIZE * column - _of(name, scene, scene.x)
        case ["attribute", name], _:
            return lambda scene: _of(name, scene, scene.on) - 0.5
    return None


def shows_subjects(scene: Scene, prompts: Sequence[str]) -> Tensor:
    """The picture shows the subjects of its prompt, the nearer and the farther one right. [B] bool.

    Nothing is a subject of a prompt outside the miniature's language.
    """
    parsed = [parse(prompt) or (NOBODY, NOBODY, 0) for prompt in prompts]
    return (scene.kind == torch.tensor([[near, far] for near, far, _ in parsed])).all(1)


def palette_distance(scene: Scene, palette: Tensor, in_order: bool) -> Tensor:
    """Mean CIEDE2000 [B] of sky, ground and subject to a palette [K, 3], in order or each to the nearest."""
    if in_order:
        return ciede2000(scene.colors, palette).mean(1)
    return ciede2000(scene.colors[:, :, None], palette).amin(2).mean(1)


def properties(reading: Reading) -> dict[str, Tensor]:
    """The measured properties of pictures, each [B, any]: their spread over seeds shows what still varies."""
    scene = reading.scene
    return {
        "horizon": scene.horizon[:, None],
        "sky": lab(scene.colors[:, 0]),
        "ground": lab(scene.colors[:, 1]),
        "subject-color": lab(scene.colors[:, 2]),
        "line-weight": scene.outline[:, None],
        "place": scene.x[:, :1],
        "size": scene.scale[:, :1],
        "attribute": scene.on[:, :1].float(),
    }


def spread(values: Tensor) -> float:
    """Root mean variance over the batch of a property [B, any]; exactly 0 where all are the same."""
    return float((values - values[0]).var(0).mean().sqrt())


def artefacts(reading: Reading, images: Tensor) -> dict[str, Tensor]:
    """What no scene of the world has, each [B].

    ``residual``: root mean square distance to the nearest scene; ``texture``: energy of second differences in
    excess of that scene's.
    """
    clean = render(reading.scene).images
    return {"residual": reading.residual, "texture": _texture(images) - _texture(clean)}


def _texture(images: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(3, 1, 3, 3)
    return F.conv2d(images, kernel, groups=3).square().mean((1, 2, 3)).sqrt()


def _palette_slack(scene: Scene, wanted: Tensor) -> Tensor:
    """How much nearer a palette [K, 3] is than the nearest family of the world, in CIEDE2000."""
    in_order = len(wanted) == 3
    others = FAMILY_COLORS
    if in_order:
        others = others[ciede2000(others, wanted).mean(1) > SAME_FAMILY]
    nearest = torch.stack([palette_distance(scene, family, in_order) for family in others]).amin(0)
    return nearest - palette_distance(scene, wanted, in_order)


def _depth_slack(scene: Scene, first: PointSpec, second: PointSpec) -> Tensor:
    """Rows by which what is at the first point stands nearer than what is at the second."""
    closeness = render(scene).closeness
    at_first, at_second = (
        closeness[:, min(int(point.y * SIZE), SIZE - 1), min(int(point.x * SIZE), SIZE - 1)]
        for point in (first, second)
    )
    rows = at_first - at_second
    return torch.where(rows.abs() >= DEPTH_MARGIN, rows, torch.nan)


def _box_slack(scene: Scene, name: str, box: BoxPrompt) -> Tensor:
    """Pixels between a subject and the nearest edge of the box around it."""
    x, base, scale = (_of(name, scene, value) for value in (scene.x, scene.base, scene.scale))
    half, tall = (extent * scale for extent in EXTENT[name])
    room = [
        x - half - SIZE * box.left,
        SIZE * box.right - x - half,
        base - tall - SIZE * box.top,
        SIZE * box.bottom - base,
    ]
    return torch.stack(room).amin(0) + TOLERANCE["inside"]


def _of(name: str, scene: Scene, values: Tensor) -> Tensor:
    """The value [B] of the subject of that name, out of [B, 2]; NaN where it is not in the picture."""
    here = scene.kind == SUBJECTS.index(name)
    value = torch.where(here[:, 0], values[:, 0], values[:, 1]).float()
    return torch.where(here.any(1), value, torch.nan)
