"""Tensors as PNG files, and labelled grids of pictures."""

import bisect
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dualproc_cli.files import write_atomically

# Of a picture that shows nothing. One of 0.5 becomes 0 in some image processors, which take that for padding.
BLANK_GRAY = 0.4
SMALLEST_TILE, LARGEST_TILE = 128, 512  # pixels of a picture's shorter side in a grid
MARGIN, GAP = 8, 4  # pixels
FONT_SIZE = 14


@dataclass(frozen=True)
class Strip:
    """A row of pictures with a label to its left.

    Attributes:
        label: may be empty.
        images: [N, 3, H, W] in [0, 1].
        notes: a text under each picture, shortened if it is wider; may be empty.
    """

    label: str
    images: Tensor
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """Strips under one caption.

    Attributes:
        caption: shortened if it is wider than the grid.
        strips: from top to bottom.
    """

    caption: str
    strips: Sequence[Strip]


def eight_bits(images: Tensor) -> Tensor:
    """Return ``images`` [..., H, W] in [0, 1] as a file holds them: uint8, on the CPU."""
    return images.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Return ``image`` [3, H, W] in [0, 1] as an 8-bit picture."""
    return Image.fromarray(eight_bits(image).permute(1, 2, 0).contiguous().numpy())


def save_png(
    picture: Tensor | Image.Image, path: Path, texts: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a picture ([3, H, W] in [0, 1], or PIL's) as PNG, atomically.

    Args:
        picture: what to write.
        path: the file.
        texts: what the file says of the picture, by keyword, in its text chunks (UTF-8).

    Raises:
        OSError: the disk is full or the folder cannot be written to.
    """
    data, info = io.BytesIO(), PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    (to_pil(picture) if isinstance(picture, Tensor) else picture).save(data, "PNG", pnginfo=info)
    write_atomically(path, data.getvalue())


def labelled_grid(sections: Sequence[Section]) -> Image.Image:
    """Draw all sections on one picture; small pictures are enlarged, large ones made smaller.

    Args:
        sections: from top to bottom; all images of a strip are of one size.
    """
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + 6
    strips = [strip for section in sections for strip in section.strips]
    labels = max(round(font.getlength(strip.label)) for strip in strips)
    left = MARGIN + (labels + MARGIN if labels else 0)
    tiles = {id(strip): _tile_size(*reversed(strip.images.shape[-2:])) for strip in strips}
    rows = [tiles[id(strip)][1] + (line if strip.notes else 0) + GAP for strip in strips]
    widest = max(len(strip.images) * (tiles[id(strip)][0] + GAP) - GAP for strip in strips)
    size = (left + widest + MARGIN, MARGIN + len(sections) * (line + MARGIN) + sum(rows))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for section in sections:
        caption = _fitted(section.caption, size[0] - 2 * MARGIN, font)
        draw.text((MARGIN, top), caption, fill="black", font=font)
        top += line
        for strip in section.strips:
            width, height = tiles[id(strip)]
            draw.text((MARGIN, top + height / 2), strip.label, fill="black", font=font, anchor="lm")
            for column, image in enumerate(strip.images):
                sheet.paste(_tile(to_pil(image), (width, height)), (left + column * (width + GAP), top))
            top += height
            for column, note in enumerate(strip.notes):
                at = (left + column * (width + GAP), top + GAP / 2)
                draw.text(at, _fitted(note, width, font), fill="black", font=font)
            top += (line if strip.notes else 0) + GAP
        top += MARGIN
    return sheet


def _tile_size(width: int, height: int) -> tuple[int, int]:
    shorter = min(width, height)
    if shorter < SMALLEST_TILE:
        factor = float(-(-SMALLEST_TILE // shorter))  # an integer: pixels become equal squares
    else:
        factor = min(1.0, LARGEST_TILE / shorter)
    return round(width * factor), round(height * factor)


def _tile(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    larger = size[0] > picture.width
    return picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def _fitted(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text))
    cut = bisect.bisect_right(lengths, width, key=lambda length: font.getlength(text[:length] + "..."))
    return text[: max(cut - 1, 0)] + "..."
