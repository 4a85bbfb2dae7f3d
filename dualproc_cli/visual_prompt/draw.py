"""A visual prompt of a spec as a layer, and the layer laid over generated pictures."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize

from dualproc_cli.errors import UserError
from dualproc_cli.spec import (
    BoxPrompt,
    ImagePrompt,
    LinePrompt,
    PalettePrompt,
    PointsPrompt,
    VisualPromptSpec,
    rgb,
)
from dualproc_cli.visual_prompt import layers

WHITE = 0.95  # a `solid` picture is transparent where every channel is above this


def draw(prompt: VisualPromptSpec, height: int, width: int, folder: Path) -> Tensor:
    """Draw ``prompt`` at the picture's own resolution.

    Args:
        prompt: any visual prompt that is composited (an image in mode ``beside`` is not).
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        folder: where the spec lies; image paths are relative to it.

    Returns:
        RGBA layer [4, H, W] in [0, 1], float32, straight alpha.
    """
    match prompt:
        case LinePrompt():
            horizontal = prompt.orientation == "horizontal"
            layer = layers.line(
                _row(prompt.position), _row(prompt.thickness), _color(prompt.color), horizontal, height, width
            )
        case BoxPrompt():
            edges = torch.tensor([[prompt.left, prompt.top, prompt.right, prompt.bottom]])
            layer = layers.box_outline(edges, _color(prompt.color), height, width)
        case PointsPrompt():
            positions = torch.tensor([[[point.x, point.y] for point in prompt.points]])
            labels = tuple(point.label for point in prompt.points)
            layer = layers.points(positions, labels, _color(prompt.color), height, width)
        case PalettePrompt():
            colors = torch.tensor([[rgb(color) for color in prompt.colors]])
            layer = layers.palette(colors, prompt.edge, prompt.size, height, width)
        case ImagePrompt():
            return _image_layer(prompt, height, width, folder)
    return layer[0]


def composite(images: Tensor, layer: Tensor) -> Tensor:
    """Lay an RGBA layer [4, H, W] over images [B, 3, H, W] in [0, 1].

    x' = (1 - alpha) x + alpha c: the gradient into a pixel is exactly its transparency, so it is zero under
    an opaque pixel.
    """
    color, alpha = layer[:3].to(images), layer[3:].to(images)
    return torch.lerp(images, color.expand_as(images), alpha.expand_as(images))


def picture(prompt: ImagePrompt, folder: Path) -> Tensor:
    """The picture [3, h, w] in [0, 1] of an image prompt, in its own size; transparency becomes white.

    Raises:
        UserError: the file is missing or no picture.
    """
    path = folder / prompt.path
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: not a readable picture ({error}); expected a PNG, JPEG or WebP file"
        ) from error
    pixels = pil_to_tensor(rgba).float() / 255
    return 1 - pixels[3:] * (1 - pixels[:3])


def _image_layer(prompt: ImagePrompt, height: int, width: int, folder: Path) -> Tensor:
    pixels = picture(prompt, folder)
    if prompt.mode == "solid":  # the paper's code: white is transparent, everything else opaque
        opaque = (pixels.amin(0, keepdim=True) < WHITE).float()
        # Colours are resized weighted by opacity, or the white around them would bleed into their edges.
        alpha = _resize(opaque, height, width)
        color = _resize(pixels * opaque, height, width) / alpha.clamp(min=1e-6)
    else:
        color = _resize(pixels, height, width)
        alpha = torch.full((1, height, width), float(prompt.opacity))
    return torch.cat([color, alpha]).clamp(0, 1)


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    return resize(pixels, [height, width], antialias=True)


def _row(value: float) -> Tensor:
    return torch.tensor([value])


def _color(color: str) -> Tensor:
    return torch.tensor([rgb(color)])
