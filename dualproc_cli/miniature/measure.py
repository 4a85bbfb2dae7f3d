"""Independent measures: has a control really been learned? Judged on the pixels, without the VLM.

Every measure answers, for each picture, whether what the spec asked for is there. All of them look at one Reading:
the scene that a small network of its own reads off the picture, refined until the rendered scene fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.errors import UserError
from dualproc_cli.miniature.captions import parse
from dualproc_cli.miniature.color import ciede2000, lab
from dualproc_cli.miniature.questions import TOLERANCE, WORDINGS
from dualproc_cli.miniature.reader import Reading
from dualproc_cli.miniature.render import render
from dualproc_cli.miniature.scene import FAMILY_COLORS, NOBODY, SIZE, SUBJECTS, Scene
from dualproc_cli.miniature.subjects import EXTENT
from dualproc_cli.spec import (
    BoxPrompt,
    LinePrompt,
    PalettePrompt,
    PointsPrompt,
    Question,
    VisualPromptSpec,
    rgb,
)

SAME_FAMILY = 8.0  # CIEDE2000: a wanted palette this near to a family is that family
BOX_MARGIN = 1.5  # pixels that a subject may stick out of a box

_KINDS = {wording.text.lower(): wording for wording in WORDINGS}


@dataclass(frozen=True)
class Goal:
    """What a spec's question wants of the pictures."""

    question: Question
    visual_prompt: VisualPromptSpec | None

    @property
    def kind(self) -> str | None:
        """The kind of question of the miniature's language, None for any other wording."""
        wording = _KINDS.get(self.question.question.lower())
        return wording.kind if wording else None

    @property
    def wanted(self) -> bool:
        """Whether the question's kind should be true: the expected answer is Yes, or No to the opposite."""
        wording = _KINDS.get(self.question.question.lower())
        return (self.question.answer.lower() == "yes") == (wording is None or wording.sign > 0)


T = TypeVar("T")
Measure = Callable[[Reading, Goal], Tensor]


def horizon(reading: Reading, goal: Goal) -> Tensor:
    """The horizon lies within 2 rows of the line. [B] bool."""
    line = _expect(goal, LinePrompt)
    hit = (reading.scene.horizon - SIZE * line.position).abs() <= TOLERANCE["horizon"]
    return hit == goal.wanted


def palette(reading: Reading, goal: Goal) -> Tensor:
    """Of the wanted palette and all families of the world, the wanted one is nearest in CIEDE2000. [B] bool.

    Three colours are taken as sky, ground and subject; of any other number, each of the picture's three colours is
    compared with the nearest.
    """
    wanted = torch.tensor([rgb(color) for color in _expect(goal, PalettePrompt).colors])
    distance = palette_distance(reading.scene, wanted)
    others = FAMILY_COLORS
    if len(wanted) == 3:
        others = others[ciede2000(others, wanted).mean(1) > SAME_FAMILY]
    nearest_other = torch.stack([palette_distance(reading.scene, family) for family in others]).amin(0)
    return (distance < nearest_other) == goal.wanted


def line_weight(reading: Reading, goal: Goal) -> Tensor:
    """The outlines are as thick as the line, within half a pixel. [B] bool."""
    line = _expect(goal, LinePrompt)
    hit = (reading.scene.outline - SIZE * line.thickness).abs() <= TOLERANCE["line-weight"]
    return hit == goal.wanted


def depth(reading: Reading, goal: Goal) -> Tensor:
    """What is at the first point stands nearer than what is at the second, by at least a row. [B] bool."""
    points = _expect(goal, PointsPrompt).points[:2]
    closeness = render(reading.scene).closeness
    pixel = lambda fraction: min(int(fraction * SIZE), SIZE - 1)  # noqa: E731
    first, second = (closeness[:, pixel(point.y), pixel(point.x)] for point in points)
    return (first > second + 1) if goal.wanted else (second > first + 1)


def composition(reading: Reading, goal: Goal) -> Tensor:
    """The subject that the question names lies inside the box, or on the vertical line. [B] bool."""
    kind = _named_subject(goal)
    here = reading.scene.kind == kind
    slot = (~here[:, :1]).long()
    x, base, scale = (
        v.gather(1, slot)[:, 0] for v in (reading.scene.x, reading.scene.base, reading.scene.scale)
    )
    if isinstance(goal.visual_prompt, LinePrompt):
        hit = (x - SIZE * goal.visual_prompt.position).abs() <= TOLERANCE["on-line"]
    else:
        box = _expect(goal, BoxPrompt)
        half, tall = (extent * scale for extent in EXTENT[SUBJECTS[kind]])
        slack = torch.stack(
            [
                x - half - SIZE * box.left,
                SIZE * box.right - x - half,
                base - tall - SIZE * box.top,
                SIZE * box.bottom - base,
            ]
        ).amin(0)
        hit = slack >= -BOX_MARGIN
    return (hit & here.any(1)) if goal.wanted else ~hit


def attributes(reading: Reading, goal: Goal) -> Tensor:
    """The subject that the question names has the attribute on, or off, as the expected answer says. [B] bool."""
    here = reading.scene.kind == _named_subject(goal)
    on = torch.where(here[:, 0], reading.scene.on[:, 0], reading.scene.on[:, 1])
    return (on == goal.wanted) & here.any(1)


def subject(reading: Reading, prompts: Sequence[str]) -> Tensor:
    """The picture shows the subjects of its prompt, the nearer and the farther one right. [B] bool."""
    parsed = [parse(prompt) for prompt in prompts]
    wanted = torch.tensor([[found[0], found[1]] if found else [NOBODY, NOBODY] for found in parsed])
    return (reading.scene.kind == wanted).all(1)


MEASURES: dict[str, Measure] = {
    "horizon": horizon,
    "palette": palette,
    "line-weight": line_weight,
    "depth": depth,
    "composition": composition,
    "attributes": attributes,
}


# Which questions a measure can judge: the start of their kind, and the visual prompt that it reads its target from.
_JUDGES: dict[str, tuple[tuple[str, ...], tuple[type, ...]]] = {
    "horizon": (("horizon",), (LinePrompt,)),
    "palette": (("palette",), (PalettePrompt,)),
    "line-weight": (("line-weight",), (LinePrompt,)),
    "depth": (("closer",), (PointsPrompt,)),
    "composition": (("inside ", "on-line "), (BoxPrompt, LinePrompt)),
    "attributes": (("attribute ",), ()),
}


def success(name: str, reading: Reading, goals: Sequence[Goal], prompts: Sequence[str]) -> Tensor:
    """Whether each picture meets every goal that the named measure can judge. [B] bool.

    Raises:
        UserError: no goal is one that the measure can judge.
    """
    if name == "subject":
        return subject(reading, prompts)
    kinds, visual_prompts = _JUDGES[name]
    judged = [
        goal for goal in goals
        if goal.kind is not None and goal.kind.startswith(kinds)
        and (not visual_prompts or isinstance(goal.visual_prompt, visual_prompts))
    ]  # fmt: skip
    if not judged:
        example = next(wording.text for wording in WORDINGS if wording.kind.startswith(kinds))
        raise UserError(
            f"evaluate.measures: {name}: no question that it can judge; expected one like {example!r}"
            + (" with its visual prompt" if visual_prompts else "")
        )
    return torch.stack([MEASURES[name](reading, goal) for goal in judged]).all(0)


def palette_distance(scene: Scene, wanted: Tensor) -> Tensor:
    """Mean CIEDE2000 [B] between sky, ground and subject and a palette [K, 3]: in order if K is 3, else the nearest."""
    if len(wanted) == 3:
        return ciede2000(scene.colors, wanted).mean(1)
    return ciede2000(scene.colors[:, :, None], wanted).amin(2).mean(1)


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
    """Root mean variance over the batch of a property [B, any]."""
    return float(values.var(0).mean().sqrt())


def artefacts(reading: Reading, images: Tensor) -> dict[str, Tensor]:
    """What no scene of the world has, each [B].

    ``residual``: root mean square distance to the nearest scene; ``texture``: energy of second differences in excess
    of that scene's.
    """
    clean = render(reading.scene).images
    return {"residual": reading.residual, "texture": _texture(images) - _texture(clean)}


def _texture(images: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(3, 1, 3, 3)
    return F.conv2d(images, kernel, groups=3).square().mean((1, 2, 3)).sqrt()


def _named_subject(goal: Goal) -> int:
    """Index of the subject that a question of kind "inside tree" or "attribute lamp" is about."""
    return SUBJECTS.index((goal.kind or "").split()[-1])


def _expect(goal: Goal, kind: type[T]) -> T:
    if not isinstance(goal.visual_prompt, kind):
        raise TypeError(f"question {goal.question.name!r} has no {kind.__name__} to measure against")
    return goal.visual_prompt
