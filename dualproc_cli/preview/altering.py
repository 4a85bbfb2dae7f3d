"""Other places and other looks of a visual prompt, to find out whether the VLM looks at it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from dualproc_cli.compiler import View
from dualproc_cli.spec import (
    BoxPrompt,
    ImagePrompt,
    LinePrompt,
    LoadedSpec,
    PalettePrompt,
    PointsPrompt,
    VisualPromptSpec,
    rgb,
)
from dualproc_cli.visual_prompt import draw_layer

PLACES = (0.2, 0.4, 0.6, 0.8)  # of a line
NEAR = 0.1  # a line that is moved by less may well answer the same question
FACTOR = 2.5  # by which a line's thickness is changed
THICKEST = 0.5


def altered_views(view: View, loaded: LoadedSpec) -> dict[str, View]:
    """Return the view with other visual prompts, by what was done to them; empty if it has none.

    A line is moved, made thicker, made thinner; a palette gets other colours; labelled points change their
    places; a box goes into the corners; a picture is turned by 180 degrees, and becomes its negative. What is
    laid over the picture is also taken away.
    """
    if view.beside is not None:
        return {how: replace(view, beside=one) for how, one in _turned(view.beside).items()}
    if view.layer is None or view.questions[0].visual_prompt is None:
        return {}
    prompt, layer = loaded.spec.visual_prompts[view.questions[0].visual_prompt], view.layer
    if isinstance(prompt, ImagePrompt):
        layers = _turned(layer)
    else:
        height, width = layer.shape[-2:]
        layers = {
            how: draw_layer(one, height, width, loaded.folder).to(layer)
            for how, one in _altered(prompt).items()
        }
    return {
        "taken away": replace(view, layer=None),
        **{how: replace(view, layer=one) for how, one in layers.items()},
    }


def _altered(prompt: VisualPromptSpec) -> Mapping[str, VisualPromptSpec]:
    """Return other visual prompts of the same kind, by what was done to this one."""
    match prompt:
        case LinePrompt():
            places = [place for place in PLACES if abs(place - prompt.position) >= NEAR]
            moved = {f"at {place}": prompt.model_copy(update={"position": place}) for place in places}
            thicker = min(FACTOR * prompt.thickness, THICKEST)
            return moved | {
                "thicker": prompt.model_copy(update={"thickness": thicker}),
                "thinner": prompt.model_copy(update={"thickness": prompt.thickness / FACTOR}),
            }
        case PalettePrompt():
            colors = [rgb(color) for color in prompt.colors]
            complements = [tuple(1 - value for value in color) for color in colors]
            turned = [(blue, red, green) for red, green, blue in colors]
            return {
                "negative": prompt.model_copy(update={"colors": _hex(complements)}),
                "other hues": prompt.model_copy(update={"colors": _hex(turned)}),
            }
        case PointsPrompt():
            others = reversed(prompt.points)
            swapped = [
                point.model_copy(update={"x": other.x, "y": other.y})
                for point, other in zip(prompt.points, others, strict=True)
            ]
            mirrored = [
                point.model_copy(update={"x": 1 - point.x, "y": 1 - point.y}) for point in prompt.points
            ]
            return {
                "swapped": prompt.model_copy(update={"points": tuple(swapped)}),
                "turned": prompt.model_copy(update={"points": tuple(mirrored)}),
            }
        case BoxPrompt():
            width, height = min(prompt.right - prompt.left, 0.5), min(prompt.bottom - prompt.top, 0.5)
            return {
                corner: prompt.model_copy(
                    update={"left": left, "top": top, "right": left + width, "bottom": top + height}
                )
                for corner, left, top in (
                    ("top left", 0.0, 0.0),
                    ("top right", 1 - width, 0.0),
                    ("bottom left", 0.0, 1 - height),
                    ("bottom right", 1 - width, 1 - height),
                )
            }
        case _:
            return {}


def _turned(picture: Tensor) -> dict[str, Tensor]:
    """Return a picture [3, h, w], or a layer [4, h, w], turned by 180 degrees, and its negative."""
    inverted = picture.clone()
    inverted[:3] = 1 - inverted[:3]
    return {"turned": picture.flip(1, 2), "negative": inverted}


def _hex(colors: Sequence[tuple[float, ...]]) -> tuple[str, ...]:
    return tuple("#" + "".join(f"{round(255 * value):02x}" for value in color) for color in colors)
