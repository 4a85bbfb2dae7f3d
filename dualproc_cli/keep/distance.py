"""Staying close to the base generator's picture from the same noise, so that the VLM cannot be fooled.

A texture that only the VLM reacts to can lower its loss too, and so can drawing one picture for all seeds.
These terms hold each picture to what the base generator draws from the same prompt and seed.
"""

import torch
from torch import Tensor

from dualproc_cli.keep.details import details
from dualproc_cli.keep.matting import matting
from dualproc_cli.keep.recoloring import recoloring
from dualproc_cli.spec import KeepSpec


def distance(images: Tensor, base: Tensor, keep: KeepSpec) -> Tensor:
    """Return the weighted sum of the terms, a scalar.

    - ``picture``: mean |x - x_base|
    - ``structure``: mean |grad x - grad x_base|, blind to a change of a whole area's colour
    - ``smoothness``: relu(TV(x) - TV(x_base)), the mean over the pictures; TV is the anisotropic total
      variation, mean |dx| + mean |dy|
    - ``matting``: what no local recolouring of x_base explains of x, and the other way round (`matting`)
    - ``recoloring``: likewise, what no single recolouring of all of x_base explains (`recoloring`)
    - ``details``: mean |x - x_base| where the colour of x_base is rare (`details`)

    Args:
        images: x [B, 3, H, W] in [0, 1], with its graph.
        base: x_base, the same shape and range, without a graph.
        keep: the weights; a term of weight 0 costs nothing.
    """
    total = images.new_zeros(())
    if keep.picture:
        total = total + keep.picture * (images - base).abs().mean()
    if keep.structure:
        # The gradient is linear: grad x - grad x_base = grad (x - x_base).
        total = total + keep.structure * total_variation(images - base).mean()
    if keep.smoothness:
        excess = total_variation(images) - total_variation(base)
        total = total + keep.smoothness * torch.relu(excess).mean()
    if keep.matting:
        total = total + keep.matting * matting(images, base)
    if keep.recoloring:
        total = total + keep.recoloring * recoloring(images, base)
    if keep.details:
        total = total + keep.details * details(images, base)
    return total


def total_variation(images: Tensor) -> Tensor:
    """Return the anisotropic total variation [B] of [B, C, H, W]: mean |dx| + mean |dy| per picture."""
    across, down = (images.diff(dim=dim).abs().mean((1, 2, 3)) for dim in (-1, -2))
    return across + down
