"""Deterministic k-means."""

import torch
from torch import Tensor

ITERATIONS = 20


def k_means(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster points [P, D] by Lloyd's algorithm, initialised by k-means++ with a constant seed.

    Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.

    Returns:
        at most ``count`` centres [K, D], fewer where fewer points differ, and the share [K] of points nearest
        to each.
    """
    rng, dtype = torch.Generator().manual_seed(0), points.dtype
    points = points.double()  # for sums over many points
    centres = points[torch.randint(len(points), (1,), generator=rng)]
    while len(centres) < count:
        apart = _distances(points, centres).amin(1).square()
        if not apart.any():
            break
        centres = torch.cat([centres, points[torch.multinomial(apart, 1, generator=rng)]])
    for _ in range(ITERATIONS):
        nearest = _distances(points, centres).argmin(1)
        counts = nearest.bincount(minlength=len(centres))[:, None]
        means = torch.zeros_like(centres).index_add(0, nearest, points) / counts.clamp(min=1)
        centres = torch.where(counts > 0, means, centres)
    nearest = _distances(points, centres).argmin(1)
    return centres.to(dtype), nearest.bincount(minlength=len(centres)) / len(points)


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    # Exact: computed by a matrix product, the distance of equal points would not be 0.
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")
