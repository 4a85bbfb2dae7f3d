"""Visual prompts as RGBA layers [B, 4, H, W] in [0, 1] (straight alpha). Each call draws B different layers.

Positions are fractions of the picture, measured from the top left. Colours are [B, 3] in [0, 1].
"""

from functools import lru_cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from dualproc_cli.visual_prompt.shapes import band, box, circle, coverage, grid, stroke

POINT_RADIUS = 0.07  # of the picture's shorter side: a letter inside stays readable at 64 pixels
BOX_STROKE = 0.03  # of the picture's shorter side
RULE = 0.1  # width of the white rule between picture and palette, as a fraction of the palette's depth


def line(
    position: Tensor, thickness: Tensor, color: Tensor, horizontal: bool, height: int, width: int
) -> Tensor:
    """Draw a line from edge to edge.

    Args:
        position: [B], the line's middle.
        thickness: [B], a fraction of the height if horizontal, of the width otherwise.
        color: [B, 3].
        horizontal: True for a line from left to right, False for one from top to bottom.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """
    x, y = grid(height, width)
    along, side = (y, height) if horizontal else (x, width)
    alpha = band(along - _pixels(position, side), _pixels(thickness, side))
    return _layer(color, alpha.expand(-1, height, width))


def box_outline(edges: Tensor, color: Tensor, height: int, width: int) -> Tensor:
    """Draw an empty box; ``edges`` [B, 4] are left, top, right, bottom, and the stroke lies inside them."""
    x, y = grid(height, width)
    left, top, right, bottom = (edges * torch.tensor([width, height, width, height]))[..., None, None].unbind(
        1
    )
    distance = box(x - (left + right) / 2, y - (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)
    pen = max(BOX_STROKE * min(height, width), 1.0)
    return _layer(color, stroke(distance + pen / 2, pen))


def points(positions: Tensor, labels: tuple[str, ...], color: Tensor, height: int, width: int) -> Tensor:
    """Draw discs with a white label inside; ``positions`` [B, P, 2] are (x, y), with P ``labels``."""
    x, y = grid(height, width)
    radius = max(POINT_RADIUS * min(height, width), 2.0)
    rgb = color[:, :, None, None].expand(-1, -1, height, width)
    alpha = torch.zeros(len(positions), height, width)
    for point, label in enumerate(labels):
        centre_x, centre_y = _pixels(positions[:, point, 0], width), _pixels(positions[:, point, 1], height)
        disc = coverage(circle(x - centre_x, y - centre_y, radius))
        # The disc hides the labels of earlier points and then carries its own.
        rgb = rgb + disc[:, None] * (color[:, :, None, None] - rgb)
        letter = _place(_glyph(label, round(1.7 * radius)), positions[:, point], height, width)[:, None]
        rgb = rgb + letter * (1 - rgb)
        alpha = torch.maximum(alpha, torch.maximum(disc, letter[:, 0]))
    return torch.cat([rgb, alpha[:, None]], 1)


def palette(colors: Tensor, edge: str, size: float, height: int, width: int) -> Tensor:
    """Draw a strip of swatches along one edge, with a white rule between it and the picture.

    Args:
        colors: [B, K, 3], from left to right or from top to bottom.
        edge: ``bottom``, ``top``, ``left`` or ``right``.
        size: depth of the strip, the rule included, as a fraction of the height at the top or bottom, of the
            width at a side.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """
    across, along = (height, width) if edge in ("top", "bottom") else (width, height)
    depth = max(round(size * across), 2)
    index = (torch.arange(along) * colors.shape[1]) // along
    strip = colors.transpose(1, 2)[:, :, None, index].expand(-1, -1, depth, -1).clone()
    strip[:, :, : max(round(RULE * depth), 1)] = 1.0
    layer = torch.zeros(len(colors), 4, across, along)
    layer[:, :3, across - depth :] = strip
    layer[:, 3, across - depth :] = 1.0
    if edge in ("top", "left"):
        layer = layer.flip(2)
    return layer if edge in ("top", "bottom") else layer.transpose(2, 3)


def _pixels(fraction: Tensor, side: int) -> Tensor:
    return (fraction * side).view(-1, 1, 1)


def _layer(color: Tensor, alpha: Tensor) -> Tensor:
    return torch.cat([color[:, :, None, None].expand(-1, -1, *alpha.shape[1:]), alpha[:, None]], 1)


@lru_cache
def _glyph(label: str, size: int) -> Tensor:
    """Return the coverage [h, w] of a label, cropped to it; a capital letter is ``size`` pixels high."""
    scale = 4  # drawn larger and averaged down, because strokes of about a pixel break up
    font = ImageFont.load_default(size * scale * 1.25)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(label))
    canvas = Image.new("L", (right - left + 2 * scale, bottom - top + 2 * scale))
    pen = ImageDraw.Draw(canvas)
    pen.text((scale - left, scale - top), label, fill=255, font=font, stroke_width=scale // 4)
    small = canvas.resize((-(-canvas.width // scale), -(-canvas.height // scale)), Image.Resampling.BOX)
    return pil_to_tensor(small)[0] / 255


def _place(glyph: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
    """Return the coverage [B, H, W] of a glyph at ``centres`` [B, 2], rounded to whole pixels and cropped."""
    rows, columns = glyph.shape
    top = (centres[:, 1] * height - rows / 2).round().long()
    left = (centres[:, 0] * width - columns / 2).round().long()
    y = torch.arange(height)[None, :] - top[:, None]
    x = torch.arange(width)[None, :] - left[:, None]
    inside = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]
    return glyph[y.clamp(0, rows - 1)[:, :, None], x.clamp(0, columns - 1)[:, None, :]] * inside
