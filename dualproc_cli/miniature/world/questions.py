"""The true answers to the miniature's questions, for scenes of the world.

For each kind of question a picture has one margin: the log-odds of Yes, large on either side and near zero
around the tolerance. The wordings of a kind, in `language`, ask for it or for its opposite.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dualproc_cli.measures.color import ciede2000
from dualproc_cli.miniature.world.captions import describe
from dualproc_cli.miniature.world.overlays import Overlays
from dualproc_cli.miniature.world.render import Rendering, by_subject_color
from dualproc_cli.miniature.world.scene import NIGHT, NOBODY, SEA, SUBJECTS, WINTER, Scene
from dualproc_cli.miniature.world.subjects import EXTENT

SURE = 5.0  # log-odds of a plain fact
# Largest log-odds. Up to it they grow with the distance, so that their gradient leads back from far away.
MAX_LOG_ODDS = 12.0
CLEAN_WEIGHT = 1.6  # how often the question whether a picture is clean is asked, relative to the others
SEEN = 0.01  # share of a picture that a colour takes to be seen, from white to black
UNCLEAR = "unclear"  # the answer to open questions about a picture that is too spoiled to tell

# Where a yes turns into a no: rows, CIEDE2000, pixels, columns, pixels that a subject may stick out of a box.
TOLERANCE = {"horizon": 2.0, "palette": 11.0, "line-weight": 0.5, "on-line": 4.0, "inside": 1.5}
# Root mean square of a picture's artefacts, of a range of 1. The generator's own pictures are clean: the
# median of theirs is about SOUND, and Yes turns to No at the 95th percentile.
SOUND, ARTEFACTS = 0.022, 0.036


class Margin(NamedTuple):
    """What is true of B pictures for one kind of question.

    Attributes:
        yes: [B] log-odds that the kind is true.
        no: [B] log-odds that its opposite is true; where the subject is missing, neither is.
        weight: [B] how often to ask, relative to the other kinds; 0 where it cannot be asked.
    """

    yes: Tensor
    no: Tensor
    weight: Tensor


def margins(scene: Scene, rendering: Rendering, overlays: Overlays) -> dict[str, Margin]:
    """Return, for each yes-no kind, what is true of the pictures, if they are clean."""
    found = {
        kind: Margin(margin, -margin, weight.expand(len(scene)))
        for kind, (margin, weight) in _about_picture(scene, rendering, overlays).items()
    }
    for kind in range(len(SUBJECTS)):
        found |= _about_subject(kind, scene, overlays)
    return found | {"clean": clean(torch.zeros(len(scene)))}


def clean(artefacts: Tensor) -> Margin:
    """Return whether pictures are clean, by the root mean square [B] of what spoils each."""
    margin = _within((artefacts - SOUND).clamp(min=0), ARTEFACTS - SOUND)
    return Margin(margin, -margin, torch.full_like(margin, CLEAN_WEIGHT))


def _about_picture(
    scene: Scene, rendering: Rendering, overlays: Overlays
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return log-odds and weights of the kinds that are not about one subject."""
    bare_line = overlays.is_horizontal.float()
    row, thickness = overlays.row, overlays.thickness
    return {
        "horizon": (_within((row - scene.horizon).abs(), TOLERANCE["horizon"]), 4 * bare_line),
        "horizon-above": (_side(row - scene.horizon, 1.0), 1.2 * bare_line),
        "line-weight": (_within((thickness - scene.outline).abs(), TOLERANCE["line-weight"]), 4 * bare_line),
        "thicker": (_side(scene.outline - thickness, 0.3), 1.0 * bare_line),
        "palette": (_palette(scene, overlays), 6 * overlays.is_palette.float()),
        "closer": (_closer(rendering, overlays), 6 * overlays.shows_both_points.float()),
        "night": _fact(scene.look == NIGHT, 0.08),
        "winter": _fact(scene.look == WINTER, 0.08),
        "sea": _fact(scene.look == SEA, 0.08),
        "two": _fact((scene.kind != NOBODY).all(1), 0.08),
    }


def _about_subject(kind: int, scene: Scene, overlays: Overlays) -> dict[str, Margin]:
    """Return the margins of the kinds about one subject."""
    name = SUBJECTS[kind]
    here = scene.kind == kind  # [B, 2]
    present, slot = here.any(1), here[:, 1:].long()
    x, base, scale, on = (
        value.gather(1, slot)[:, 0] for value in (scene.x, scene.base, scene.scale, scene.on)
    )
    half, tall = (extent * scale for extent in EXTENT[name])
    left, top, right, bottom = overlays.box.unbind(1)
    slack = torch.stack([x - half - left, base - tall - top, right - x - half, bottom - base], 1).amin(1)
    on_line = _within((x - overlays.column).abs(), TOLERANCE["on-line"])

    def of_it(margin: Tensor, weight: Tensor | float) -> Margin:
        yes, no = (torch.where(present, sure, -SURE) for sure in (margin, -margin))
        return Margin(yes, no, present * weight)

    exists = _sure(present)
    found = {
        f"inside {name}": of_it(_side(slack + TOLERANCE["inside"], 1.5), 4 * overlays.is_box),
        f"on-line {name}": of_it(on_line, 4 * overlays.is_vertical),
        f"left {name}": of_it(_side(overlays.column - x, 2.0), 1.2 * overlays.is_vertical),
        f"exists {name}": Margin(exists, -exists, torch.where(present, 0.25, 0.12)),
        f"attribute {name}": of_it(_sure(on), 1.2),
    }
    for other, other_name in enumerate(SUBJECTS):
        if other != kind:
            near = (scene.kind[:, 0] == kind) & (scene.kind[:, 1] == other)
            far = (scene.kind[:, 1] == kind) & (scene.kind[:, 0] == other)
            front = _sure(near)
            found[f"front {name} {other_name}"] = Margin(front, -front, 0.4 * (near | far))
    return found


def open_answers(scene: Scene) -> dict[str, list[str]]:
    """Return the true answers to the open kinds, one for each picture."""
    looks = scene.look.tolist()
    return {
        "what": [describe(near, far) for near, far in scene.kind.tolist()],
        "time": ["night" if look == NIGHT else "day" for look in looks],
        "season": ["winter" if look == WINTER else "summer" for look in looks],
        "count": ["one" if far == NOBODY else "two" for far in scene.kind[:, 1].tolist()],
    }


def _palette(scene: Scene, overlays: Overlays) -> Tensor:
    """Return the log-odds that pictures have their palettes' colours, 0 without a palette."""
    margin = torch.zeros(len(scene))
    (rows,) = overlays.is_palette.nonzero(as_tuple=True)
    margin[rows] = palette_margin(palette_distance(scene[rows], overlays.palette[rows]))
    return margin


def palette_margin(distance: Tensor) -> Tensor:
    """Return the log-odds [B] that pictures have palettes' colours, by the largest CIEDE2000 [B] to them."""
    return _within(distance, TOLERANCE["palette"])


def palette_distance(scene: Scene, palette: Tensor) -> Tensor:
    """Return the largest CIEDE2000 [B] of sky, ground and subject, in that order, to palettes [B or 1, 3, 3].

    The subject's does not count where it is not seen.
    """
    return seen_color_difference(scene, ciede2000(scene.colors, palette))


def seen_color_difference(scene: Scene, difference: Tensor) -> Tensor:
    """Return the largest [B] of differences [B, 3] of sky, ground and subject, of those that are seen."""
    sky, ground, subject = difference.unbind(1)
    seen = shows_subject_color(scene)
    return torch.maximum(torch.maximum(sky, ground), torch.where(seen, subject, 0.0))


@torch.no_grad()
def shows_subject_color(scene: Scene) -> Tensor:
    """Return whether scenes show the subjects' colour [B], on a share `SEEN` of the picture.

    Bare trees do not, nor do lamps of which thick outlines leave a few pixels.
    """
    _, slope = by_subject_color(scene)
    return slope.mean((1, 2, 3)) >= SEEN


def _within(distance: Tensor, tolerance: float) -> Tensor:
    """Return log-odds: SURE at distance 0, 0 at the tolerance, falling with the logarithm beyond."""
    return (SURE - 6 * torch.log1p(1.301 * distance / tolerance)).clamp(min=-MAX_LOG_ODDS)


def _side(difference: Tensor, scale: float) -> Tensor:
    """Return log-odds with the sign of a difference, clear (2.6) where it is ``scale``."""
    return (3 * torch.asinh(difference / scale)).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)


def _sure(truth: Tensor) -> Tensor:
    """Return the log-odds of a plain fact."""
    return torch.where(truth, SURE, -SURE)


def _fact(truth: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return log-odds and weights of a fact that is true of a quarter of the pictures: as often Yes as No."""
    return _sure(truth), torch.where(truth, 3 * share, share)


def _closer(rendering: Rendering, overlays: Overlays) -> Tensor:
    """Return the log-odds that what is at point A stands nearer than what is at point B."""
    rows = torch.arange(len(overlays.points))
    column, row = overlays.points.long().clamp(0, rendering.closeness.shape[-1] - 1).unbind(2)
    first, second = (rendering.closeness[rows, row[:, p], column[:, p]] for p in (0, 1))
    return _side(first - second, 2.0)
