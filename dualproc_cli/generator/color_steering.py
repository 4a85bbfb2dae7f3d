"""Steering of the colours: one smooth function of colour for each picture, which cannot draw anything."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 4  # the function depends on the picture's mean colours over a grid of this side
HIDDEN = 64  # width of the network
LARGEST = math.log(9)  # of the logarithm of a gain: a dull colour becomes a vivid one, and black stays black


def zero(layer: nn.Linear) -> nn.Linear:
    """Return the layer with all its weights set to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ColorSteering(nn.Module):
    """y = x exp(g(x, s)), pixel by pixel and channel by channel.

    s are the picture's mean colours over a coarse grid. A flat area stays flat, an edge stays where it is,
    and an outline stays black: structure is kept by construction. It starts as the identity.
    """

    def __init__(self, prompt: int) -> None:
        """Make the network, with ``prompt`` numbers about a prompt beside the picture's colours."""
        super().__init__()
        self.color = nn.Linear(3, HIDDEN)
        self.picture = nn.Linear(3 * GRID**2 + prompt, HIDDEN, bias=False)
        last = zero(nn.Linear(HIDDEN, 3))
        self.network = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last)

    def forward(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Recolour images [B, 3, H, W] in [0, 1], given numbers about their prompts [B, P]."""
        about = torch.cat([2 * F.adaptive_avg_pool2d(images, GRID).flatten(1) - 1, prompt], 1)
        colors = images.movedim(1, -1)
        hidden = self.color(4 * colors - 2) + self.picture(about)[:, None, None]
        gain = torch.exp(LARGEST * torch.tanh(self.network(hidden) / LARGEST))
        return (colors * gain).movedim(-1, 1).clamp(0, 1)
