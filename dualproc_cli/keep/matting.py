"""What of a picture no local recolouring of another one explains.

In every window w of a picture, its colours x should be an affine function of the base picture's b,
x = A_w b + a_w, whatever it is: areas may take any colour and edges any contrast, but nothing appears in an
area that was flat, no edge moves, blurs or rings. The matting Laplacian (Levin et al. 2008, "A Closed-Form
Solution to Natural Image Matting") is the residual of such a fit, and keeps transferred styles photorealistic
(Luan et al. 2017, "Deep Photo Style Transfer"). Here the fit is made both ways, as one way is blind to what
vanishes, and in windows of several sizes: a stain is hardly seen in the smallest, and in large ones are more
colours than an affine function can change at will.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 3  # pixels, side of the smallest windows; the next have 3, 9, 27, ... times as much
LARGEST = 1 / 6  # of the picture's shorter side
RIDGE = 1e-4  # variance of colours below which contrast is no longer followed: a deviation of .01 in [0, 1]
SOFT = 1e-3  # deviation below which the cost is quadratic


def matting(images: Tensor, base: Tensor) -> Tensor:
    """Return how far pictures are from local recolourings of others, and these from theirs: a scalar.

    It is the root mean square residual of the affine fit of a window, the mean over windows and their sizes.

    Args:
        images: [B, 3, H, W] in [0, 1], with their graph.
        base: the same shape and range.
    """
    images, base = images.float() - 0.5, base.float() - 0.5  # which loses fewer digits
    sides = [SMALLEST]
    while 3 * sides[-1] <= LARGEST * min(images.shape[-2:]):
        sides.append(3 * sides[-1])
    return torch.stack([_both_ways(images, base, side) for side in sides]).mean()


def _both_ways(one: Tensor, other: Tensor, side: int) -> Tensor:
    """Return what each picture leaves unexplained of the other in windows of a side, a scalar."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, side, max(side // 3, 1))

    def covariance(x: Tensor, y: Tensor) -> Tensor:  # [B, h, w, 3, 3]
        product = mean((x[:, :, None] * y[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
        return (product - means[x][:, :, None] * means[y][:, None]).movedim((1, 2), (-2, -1))

    means = {one: mean(one), other: mean(other)}
    ones, shared, others = covariance(one, one), covariance(one, other), covariance(other, other)
    return _residual(ones, shared, others) + _residual(others, shared.mT, ones)


def _residual(var_x: Tensor, cov_xb: Tensor, var_b: Tensor) -> Tensor:
    """Return the mean root mean square of x that b does not explain, by their covariances [B, h, w, 3, 3].

    Of each window, it is the root of tr(var x - cov(x, b) (var b + ridge)^-1 cov(b, x)).
    """
    ridge = RIDGE * torch.eye(3, device=var_b.device)
    explained = (cov_xb.mT * torch.linalg.solve(var_b + ridge, cov_xb.mT)).sum((-2, -1))
    variance = var_x.diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((variance - explained).clamp(min=0) + SOFT**2).sqrt().mean() - SOFT
