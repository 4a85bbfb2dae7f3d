"""What the miniature's VLM can be asked, and the true answers for scenes of the world.

A question kind has one margin a picture: the log-odds of Yes, sure on both sides and soft around the
tolerance. Its wordings ask it in either polarity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.miniature.captions import describe
from dualproc_cli.miniature.color import ciede2000
from dualproc_cli.miniature.overlays import Overlays
from dualproc_cli.miniature.render import Rendering
from dualproc_cli.miniature.scene import ATTRIBUTES, NIGHT, NOBODY, SEA, SUBJECTS, WINTER, Scene
from dualproc_cli.miniature.subjects import EXTENT

SURE = 5.0  # the largest log-odds that is taught

# Where a yes turns into a no: rows, CIEDE2000, pixels, columns.
TOLERANCE = {"horizon": 2.0, "palette": 8.0, "line-weight": 0.5, "on-line": 4.0}


@dataclass(frozen=True)
class Wording:
    """One way to ask a kind of question; ``sign`` -1 asks for the opposite."""

    text: str
    kind: str
    sign: int = 1


def _wordings() -> list[Wording]:
    yes_no: dict[str, tuple[list[str], list[str]]] = {
        "horizon": (
            [
                "Is the horizon at the red line?",
                "Does the horizon lie on the red line?",
                "Is the red line at the horizon?",
            ],
            ["Is the horizon away from the red line?", "Is the red line away from the horizon?"],
        ),
        "horizon-above": (["Is the horizon above the red line?"], ["Is the horizon below the red line?"]),
        "palette": (
            [
                "Do the colors match the palette?",
                "Does the picture use the palette?",
                "Are the colors those of the palette?",
            ],
            ["Do the colors differ from the palette?"],
        ),
        "line-weight": (
            [
                "Are the outlines as thick as the red line?",
                "Do the outlines match the red line?",
                "Is the red line as thick as the outlines?",
            ],
            ["Do the outlines differ from the red line?"],
        ),
        "thicker": (
            ["Are the outlines thicker than the red line?"],
            ["Are the outlines thinner than the red line?"],
        ),
        "closer": (
            [
                "Is point A closer than point B?",
                "Is point A nearer than point B?",
                "Is point B farther than point A?",
            ],
            [
                "Is point B closer than point A?",
                "Is point A farther than point B?",
                "Is point B nearer than point A?",
            ],
        ),
        "night": (["Is it night?"], ["Is it day?"]),
        "winter": (["Is it winter?", "Is there snow?"], ["Is it summer?"]),
        "sea": (["Is there the sea?", "Is it by the sea?"], []),
        "two": (["Are there two subjects?"], ["Is there one subject?"]),
    }
    for name in SUBJECTS:
        on, off = ATTRIBUTES[name]
        yes_no |= {
            f"inside {name}": (
                [f"Is the {name} inside the red box?", f"Does the red box contain the {name}?"],
                [f"Is the {name} outside the red box?"],
            ),
            f"on-line {name}": (
                [f"Is the {name} on the red line?", f"Does the red line go through the {name}?"],
                [f"Is the {name} away from the red line?"],
            ),
            f"left {name}": (
                [f"Is the {name} left of the red line?"],
                [f"Is the {name} right of the red line?"],
            ),
            f"exists {name}": ([f"Is there a {name}?", f"Does the picture show a {name}?"], []),
            f"attribute {name}": ([f"Is the {name} {on}?"], [f"Is the {name} {off}?"]),
        }
        for other in SUBJECTS:
            if other != name:
                in_front = [f"Is the {name} in front of the {other}?"]
                yes_no[f"front {name} {other}"] = (in_front, [f"Is the {name} behind the {other}?"])
    right = "Does the {} look right for {}?"
    yes_no["attribute house"][0].append("Is the window lit?")
    yes_no["attribute house"][1].append("Is the window dark?")
    yes_no["attribute lamp"][0].append("Is the lamp on?")
    yes_no["attribute lamp"][1].append("Is the lamp off?")
    # Commonsense: what a season or an hour asks for, without naming the attribute.
    for name in ("house", "lamp"):
        yes_no[f"attribute {name}"][0].append(right.format(name, "the night"))
        yes_no[f"attribute {name}"][1].append(right.format(name, "the day"))
    yes_no["attribute tree"][0].extend(
        [right.format("tree", "winter"), "Is the tree as it should be in winter?"]
    )
    yes_no["attribute tree"][1].extend(
        [right.format("tree", "summer"), "Is the tree as it should be in summer?"]
    )
    yes_no["attribute ball"][0].append("Is the ball happy?")
    found = [
        Wording(t, kind, sign) for kind, pair in yes_no.items() for sign, ts in zip((1, -1), pair) for t in ts
    ]
    open_ones = {
        "what": ["What is in the picture?", "What does the picture show?"],
        "time": ["What time is it?"],
        "season": ["What season is it?"],
        "count": ["How many subjects are there?"],
    }
    return found + [Wording(text, kind) for kind, texts in open_ones.items() for text in texts]


WORDINGS = _wordings()
OPEN_KINDS = ("what", "time", "season", "count")
YES_NO_KINDS = tuple(dict.fromkeys(w.kind for w in WORDINGS if w.kind not in OPEN_KINDS))


def margins(scene: Scene, rendering: Rendering, overlays: Overlays) -> dict[str, tuple[Tensor, Tensor]]:
    """For each yes-no kind: the log-odds of Yes [B], and how much it is worth asking [B] (0: it cannot be)."""
    bare_line = overlays.is_horizontal.float()
    row, thickness = overlays.row, overlays.thickness
    found: dict[str, tuple[Tensor, Tensor]] = {
        "horizon": (_within((row - scene.horizon).abs(), TOLERANCE["horizon"]), 4 * bare_line),
        "horizon-above": (_side(row - scene.horizon, 1.0), 0.7 * bare_line),
        "line-weight": (_within((thickness - scene.outline).abs(), TOLERANCE["line-weight"]), 4 * bare_line),
        "thicker": (_side(scene.outline - thickness, 0.3), 1.0 * bare_line),
        "palette": (
            _within(palette_distance(scene, overlays.palette), TOLERANCE["palette"]),
            6 * overlays.is_palette.float(),
        ),
        "closer": (_closer(rendering, overlays), 6 * overlays.is_points.float()),
        "night": _fact(scene.look == NIGHT, 0.08),
        "winter": _fact(scene.look == WINTER, 0.08),
        "sea": _fact(scene.look == SEA, 0.08),
        "two": _fact(scene.kind[:, 1] != NOBODY, 0.08),
    }
    for kind, name in enumerate(SUBJECTS):
        here = scene.kind == kind  # [B, 2]
        present = here.any(1)
        slot = here[:, 1].long()[:, None]
        of = lambda value, slot=slot: value.gather(1, slot)[:, 0]  # noqa: E731
        x, base, scale = of(scene.x), of(scene.base), of(scene.scale)
        half, tall = (EXTENT[name][axis] * scale for axis in (0, 1))
        left, top, right, bottom = overlays.box.unbind(1)
        slack = torch.stack([x - half - left, base - tall - top, right - x - half, bottom - base], 1).amin(1)
        seen = present.float()
        found |= {
            f"inside {name}": (_side(slack + 1.5, 1.5), 4 * seen * overlays.is_box),
            f"on-line {name}": (
                _within((x - overlays.column).abs(), TOLERANCE["on-line"]),
                4 * seen * overlays.is_vertical,
            ),
            f"left {name}": (_side(overlays.column - x, 2.0), 0.7 * seen * overlays.is_vertical),
            f"exists {name}": (_sure(present), torch.where(present, 0.25, 0.12)),
            f"attribute {name}": (_sure(of(scene.on)), 1.2 * seen),
        }
        for other, other_name in enumerate(SUBJECTS):
            if other != kind:
                near = (scene.kind[:, 0] == kind) & (scene.kind[:, 1] == other)
                far = (scene.kind[:, 1] == kind) & (scene.kind[:, 0] == other)
                found[f"front {name} {other_name}"] = (_sure(near), 0.4 * (near | far))
    return found


def open_answers(scene: Scene) -> dict[str, list[str]]:
    """The true answers to the open kinds, one a picture."""
    looks = scene.look.tolist()
    return {
        "what": [describe(near, far) for near, far in scene.kind.tolist()],
        "time": ["night" if look == NIGHT else "day" for look in looks],
        "season": ["winter" if look == WINTER else "summer" for look in looks],
        "count": ["one" if far == NOBODY else "two" for far in scene.kind[:, 1].tolist()],
    }


def palette_distance(scene: Scene, palette: Tensor) -> Tensor:
    """Mean CIEDE2000 [B] of sky, ground and subject, in that order, to a palette's three colours [B, 3, 3]."""
    return ciede2000(scene.colors, palette).mean(1)


def _within(distance: Tensor, tolerance: float) -> Tensor:
    """Log-odds 5 at no distance, 0 at the tolerance, falling with its logarithm beyond."""
    return (SURE - 6 * torch.log1p(1.301 * distance / tolerance)).clamp(min=-SURE)


def _side(difference: Tensor, scale: float) -> Tensor:
    return SURE * torch.tanh(difference / (2 * scale))


def _sure(truth: Tensor) -> Tensor:
    return torch.where(truth, SURE, -SURE)


def _fact(truth: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A fact true of a quarter of the pictures, asked so that Yes and No come equally often."""
    return _sure(truth), torch.where(truth, 3 * share, share)


def _closer(rendering: Rendering, overlays: Overlays) -> Tensor:
    rows = torch.arange(len(overlays.points))
    column, row = overlays.points.long().clamp(0, rendering.closeness.shape[-1] - 1).unbind(2)
    first, second = (rendering.closeness[rows, row[:, p], column[:, p]] for p in (0, 1))
    return SURE * torch.tanh((first - second) / 4)
