"""What of the small things of a picture has another colour than in another one.

A recolouring is asked of large areas, such as a sky. Small things of a colour of their own, a lit window or a
sun, are not asked about, hardly seen, and take a tint of what is around them; a recolouring explains that, so
that `matting` and `recoloring` do not charge it. Here the change of each pixel is charged by how rare its
colour is in the base picture. Pixels at an edge do not count: their colours are mixtures, rare, and have to
change with what they are mixtures of.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.keep.reduced import reduced

LARGEST = 64  # pixels: pictures with a longer side are reduced to it
RARE = 0.03  # share of the picture from which on a colour is not rare
ALIKE = 0.15  # distance of colours in [0, 1]^3 that count as one
AT_ONCE = 512  # pixels that are compared with others, to save memory
FLAT = 0.15  # difference within 3 x 3 pixels from which on they are at an edge


def details(images: Tensor, base: Tensor) -> Tensor:
    """Return the mean absolute change of rare colours, of all pixels: a scalar.

    Args:
        images: [B, 3, H, W] in [0, 1], with their graph.
        base: the same shape and range.
    """
    images, base = (reduced(pictures.float(), LARGEST) for pictures in (images, base))
    return (rarity(base) * (images - base).abs().mean(1)).mean()


@torch.no_grad()
def rarity(images: Tensor) -> Tensor:
    """Return how rare each pixel's colour is in images [B, 3, H, W]: [B, H, W] in [0, 1], 0 at edges."""
    some = images[..., ::3, ::3].flatten(2).mT
    shares = [
        (torch.cdist(part, others) < ALIKE).float().mean(-1)
        for colors, others in zip(images.flatten(2).mT, some, strict=True)
        for part in colors.split(AT_ONCE)
    ]
    share = torch.cat(shares).view(len(images), *images.shape[-2:])
    range_ = F.max_pool2d(images, 3, 1, 1) + F.max_pool2d(-images, 3, 1, 1)
    return torch.relu(1 - share / RARE) * (range_.amax(1) < FLAT)
