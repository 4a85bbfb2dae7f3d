"""Lines, palettes, points, boxes and pictures laid over a generated picture, differentiably."""

from dualproc_cli.visual_prompt.draw import composite, draw_layer
from dualproc_cli.visual_prompt.region import Window, window

__all__ = ["Window", "composite", "draw_layer", "window"]
