"""Drawing a spec's visual prompt as a layer, and laying the layer over generated pictures."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from dualproc_cli.picture_files import load_picture
from dualproc_cli.spec.fields import rgb
from dualproc_cli.spec.visual_prompts import (
    BoxPrompt,
    ImagePrompt,
    LinePrompt,
    PalettePrompt,
    PointsPrompt,
    VisualPromptSpec,
)
from dualproc_cli.visual_prompt import layers


def draw_layer(prompt: VisualPromptSpec, height: int, width: int, folder: Path) -> Tensor:
    """Draw a visual prompt at the resolution of the picture that it is laid over.

    Args:
        prompt: any visual prompt but an image in mode ``beside``, which is not laid over the picture.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        folder: where the spec lies; image paths are relative to it.

    Returns:
        An RGBA layer [4, H, W] in [0, 1], float32, straight alpha.

    Raises:
        UserError: the file of an image prompt cannot be read.
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
    """Lay an RGBA layer [4, H, W] over images [B, 3, H, W], both in [0, 1]; return new images.

    x' = (1 - alpha) x + alpha c. The gradient of x' with respect to x is 1 - alpha: zero under an opaque
    pixel.
    """
    color, alpha = layer[:3].to(images), layer[3:].to(images)
    return torch.lerp(images, color.expand_as(images), alpha.expand_as(images))


def _image_layer(prompt: ImagePrompt, height: int, width: int, folder: Path) -> Tensor:
    pixels = load_picture(folder / prompt.path)
    if prompt.mode == "solid":  # as in the paper's code, white is transparent and everything else opaque
        opaque = (pixels < 1).any(0, keepdim=True).float()
        # Colours are resized weighted by their opacity, or the white around them would bleed into them.
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
