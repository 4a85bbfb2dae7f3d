"""Lines, palettes, points, boxes and pictures laid over a generated picture, differentiably."""

from dualproc_cli.visual_prompt.draw import composite, draw, picture

__all__ = ["composite", "draw", "picture"]
