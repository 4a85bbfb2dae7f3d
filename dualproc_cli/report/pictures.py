"""The pictures of a report, small enough for all of them to be in one file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.pictures import to_pil
from dualproc_cli.report.evaluated import Evaluated
from dualproc_cli.spec import ControlSpec, ImagePrompt
from dualproc_cli.visual_prompt import draw_layer

BUDGET = 1_500_000  # bytes of all pictures of a report, before they are written as text
SIDES = (384, 320, 256, 192, 128, 64)  # pixels of the longer side: the first whose pictures fit is taken
QUALITY = 80
LAYER_SIDE = 512  # pixels


@dataclass(frozen=True)
class Row:
    """Pictures of one generator, of one prompt.

    Attributes:
        label: whose.
        pictures: data URIs.
    """

    label: str
    pictures: list[str]


@dataclass(frozen=True)
class Strip:
    """What is drawn from one prompt by the base generator and by the controls, at the same seeds.

    Attributes:
        prompt: what was drawn.
        held_out: whether none of the controls was learned on it.
        rows: from the base generator on.
    """

    prompt: str
    held_out: bool
    rows: list[Row]


def strips(found: Sequence[Evaluated]) -> list[Strip]:
    """Return the pictures of all controls, prompt by prompt. A base that several share is shown once."""
    drawn: dict[str, list[tuple[str, Tensor]]] = {}
    held_out: dict[str, bool] = {}
    for one in found:
        for page in one.album.pages:
            rows = drawn.setdefault(page.prompt, [])
            held_out[page.prompt] = held_out.get(page.prompt, True) and page.held_out
            if not any(torch.equal(page.base, images) for _, images in rows):
                rows.append((f"base of {one.label}" if rows else "base", page.base))
            rows.append((one.label if len(found) > 1 else "learned", page.learned))
    texts = iter(_encoded([image for rows in drawn.values() for _, images in rows for image in images]))
    return [
        Strip(
            prompt,
            held_out[prompt],
            [Row(label, [next(texts) for _ in images]) for label, images in rows],
        )
        for prompt, rows in drawn.items()
    ]


def overlay(spec: ControlSpec, folder: Path) -> str | None:
    """Return the visual prompts that a spec lays over its pictures, all at once, as a data URI.

    None if there are none. ``folder`` is where the spec's pictures lie.
    """
    height, width = spec.generator.height, spec.generator.width
    factor = max(1, -(-LAYER_SIDE // max(height, width)))  # lines of a small picture stay sharp
    size, shown = (factor * height, factor * width), None
    for prompt in dict.fromkeys(one.visual_prompt for one in spec.questions if one.visual_prompt):
        found = spec.visual_prompts[prompt]
        if isinstance(found, ImagePrompt) and found.mode == "beside":
            continue
        layer = draw_layer(found, *size, folder)
        picture = Image.merge(
            "RGBA", [*to_pil(layer[:3]).split(), to_pil(layer[3:].repeat(3, 1, 1)).split()[0]]
        )
        shown = picture if shown is None else Image.alpha_composite(shown, picture)
    if shown is None:
        return None
    shown.thumbnail((LAYER_SIDE, LAYER_SIDE))
    return _uri(_webp(shown))


def _encoded(images: Sequence[Tensor]) -> list[str]:
    """Return images [3, H, W] in [0, 1] as data URIs, made smaller until all fit into `BUDGET`."""
    files: list[bytes] = []
    for side in SIDES:
        files = []
        for image in images:
            picture = to_pil(image)
            picture.thumbnail((side, side))
            files.append(_webp(picture))
        if sum(map(len, files)) <= BUDGET:
            break
    return [_uri(file) for file in files]


def _webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4, lossless=max(picture.size) <= SIDES[-1])
    return file.getvalue()


def _uri(file: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(file).decode()
