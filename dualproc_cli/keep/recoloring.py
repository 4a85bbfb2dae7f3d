"""What of a picture no recolouring of another one explains.

The colours x of a picture should be a function of the base picture's b, the same everywhere: x = p(b),
whatever smooth p is. Areas may take any colour, but what has one colour in the base picture keeps one,
so that no stain appears in it, and no edge is smeared. p is a cubic, fitted by least squares, and the fit is
made both ways, as one way is blind to what vanishes. `matting` asks the same of each small window, in which a
gentle slope of b can be stretched to a smear.
"""

from functools import reduce
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from dualproc_cli.keep.reduced import reduced

DEGREE = 3  # of the polynomial: enough for the few colours of a picture, too little to follow each shade
LARGEST = 128  # pixels: pictures with a longer side are reduced to it, as stains are large
RIDGE = 1e-4  # mean square that a coefficient of 1 costs; colours are from -1 to 1
SOFT = 1e-3  # distance of colours below which the cost is quadratic


def recoloring(images: Tensor, base: Tensor) -> Tensor:
    """Return how far pictures are from recolourings of others, and these from theirs: a scalar.

    It is the mean over the pixels of the root mean square residual of a pixel's colour, of both ways the sum.

    Args:
        images: [B, 3, H, W] in [0, 1], with their graph.
        base: the same shape and range.
    """
    one, other = (_colors(pictures) for pictures in (images, base))
    return _residual(one, other) + _residual(other, one)


def _colors(images: Tensor) -> Tensor:
    """Return the colours [B, N, 3] of pictures, from -1 to 1, of a reduced picture if they are large."""
    return reduced(2 * images.float() - 1, LARGEST).flatten(2).mT


def _residual(colors: Tensor, of: Tensor) -> Tensor:
    """Return how far colours [B, N, 3] are from a polynomial of others, in units of [0, 1]: a scalar."""
    powers = _powers(of)
    gram = powers.mT @ powers / len(powers[0]) + RIDGE * torch.eye(powers.shape[-1], device=powers.device)
    fitted = powers @ torch.linalg.solve(gram, powers.mT @ colors / len(powers[0]))
    error = (fitted - colors) / 2
    return (error.square().mean(-1) + SOFT**2).sqrt().mean() - SOFT


def _powers(colors: Tensor) -> Tensor:
    """Return all products of up to DEGREE channels of colours [B, N, 3], and 1: [B, N, 20]."""
    channels = (torch.ones_like(colors[..., 0]), *colors.unbind(-1))
    chosen = combinations_with_replacement(channels, DEGREE)
    return torch.stack([reduce(torch.mul, factors) for factors in chosen], -1)
