"""A scene fitted to a picture: its numbers mean what the renderer means by them.

What is left over is what no scene of the world looks like.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dualproc_cli.miniature.world.render import GROUND_SHADE, SKY_HAZE, render
from dualproc_cli.miniature.world.scene import HORIZON, NOBODY, OUTLINE, SIZE, SUBJECTS, Scene

# Mean square difference that a farther subject must explain. Otherwise one in twenty pictures of one subject
# gets a second, small one for what is left over; as many true ones are found.
FAR_COST = 4e-4
# How far a step of the fit may move each parameter, so that all mean about as much in the picture.
FIT_RATES = {
    "horizon": 0.25,
    "outline": 0.15,
    "colors": 0.01,
    "x": 0.25,
    "base": 0.25,
    "scale": 0.01,
    "sun_x": 0.25,
}
FIT_LIMITS = {
    "horizon": (SIZE * (HORIZON[0] - 0.1), SIZE * (HORIZON[1] + 0.1)),
    "outline": (OUTLINE[0] / 2, OUTLINE[1] + 1),
    "colors": (0.0, 1.0),
    "scale": (0.3, 2.0),
}


def fit(scene: Scene, images: Tensor, steps: int) -> Scene:
    """Projected Adam on the continuous parameters of each scene, towards images [B, 3, H, W]."""
    free = {name: getattr(scene, name).detach().clone().requires_grad_() for name in FIT_RATES}
    _project(free)
    optimizer = torch.optim.Adam([{"params": [value]} for value in free.values()], betas=(0.8, 0.95))
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, FIT_RATES.values(), strict=True):
            group["lr"] = rate * (1 - step / steps)
        with torch.enable_grad():
            error = render(replace(scene, **free)).images - images
            # Robust: what the scene cannot explain should not pull at what it can.
            loss = (torch.sqrt(error.square() + 0.01) - 0.1).mean((1, 2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _project(free)
    return replace(scene, **{name: value.detach() for name, value in free.items()})


@torch.no_grad()
def _project(free: dict[str, Tensor]) -> None:
    """Back into the limits, in place: a clamp inside the render would leave no gradient to come back by."""
    for name, (low, high) in FIT_LIMITS.items():
        free[name].clamp_(low, high)


@torch.no_grad()
def split(scene: Scene, images: Tensor) -> Scene:
    """Of all rows, the one that best splits into sky and ground what no subject hides, with their colours.

    Least squares over every half row: descent alone would stay at the remains of an earlier horizon.
    """
    seen = 1 - render(scene).subject.sum(1)  # [B, H, W]
    count, total = seen.sum(2), (seen[:, None] * images).sum(3)  # [B, H], [B, 3, H]
    low, high = FIT_LIMITS["horizon"]
    rows = torch.arange(low, high, 0.5)[:, None]  # [R, 1]
    y = torch.arange(SIZE) + 0.5
    ground = (y - rows + 0.5).clamp(0, 1)  # [R, H]
    haze = SKY_HAZE * (y / rows).clamp(0, 1)
    shade = 1 - GROUND_SHADE * ((y - rows) / (SIZE - rows)).clamp(0, 1)
    sky_color, sky_error = _least_squares(count, total, 1 - ground, 1 - haze, haze)
    ground_color, ground_error = _least_squares(count, total, ground, shade, torch.zeros_like(shade))
    best = (sky_error + ground_error).argmin(1)
    each = torch.arange(len(best))
    colors = [sky_color[each, :, best], ground_color[each, :, best], scene.colors[:, 2]]
    return replace(scene, horizon=rows[best, 0], colors=torch.stack(colors, 1))


def _least_squares(
    count: Tensor, total: Tensor, weight: Tensor, slope: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours [B, 3, R] in [0, 1] that, times ``slope`` plus ``offset`` [R, H], come nearest to rows.

    The rows of pixels are given as counts [B, H] and sums [B, 3, H]. Errors [B, R] leave out what R share.
    """
    weighted = weight * slope
    wanted = (
        torch.einsum("bch,rh->bcr", total, weighted)
        - torch.einsum("bh,rh->br", count, weighted * offset)[:, None]
    )
    color = (wanted / torch.einsum("bh,rh->br", count, weighted * slope).clamp(min=1e-6)[:, None]).clamp(0, 1)
    model = color[..., None] * slope + offset  # [B, 3, R, H]
    error = weight * (count[:, None, None] * model - 2 * total[:, :, None]) * model
    return color, error.sum((1, 3))


@torch.no_grad()
def choose_subject(scene: Scene, images: Tensor, slot: int) -> Scene:
    """Of all subjects, attribute on or off (and nobody, for the farther one), the one that fits best."""
    kinds = range(len(SUBJECTS)) if slot == 0 else range(NOBODY, len(SUBJECTS))
    states = torch.tensor([(kind, on) for kind in kinds for on in (False, True)])
    distances = torch.stack([distance(_with_subject(scene, slot, state), images) for state in states])
    if slot == 1:
        distances += FAR_COST * (states[:, :1] != NOBODY)
    return _with_subject(scene, slot, states[distances.argmin(0)])


def _with_subject(scene: Scene, slot: int, state: Tensor) -> Scene:
    """The scene with kind and attribute ``state`` [2] or [B, 2] in one slot."""
    kind, on = scene.kind.clone(), scene.on.clone()
    kind[:, slot], on[:, slot] = state[..., 0], state[..., 1].bool()
    return replace(scene, kind=kind, on=on)


@torch.no_grad()
def nearer(one: Scene, other: Scene, images: Tensor) -> Scene:
    """For each picture, the one of two scenes that explains it better."""
    both = Scene.concatenate([one, other])
    count = torch.arange(len(images))
    return both[torch.where(distance(one, images) <= distance(other, images), count, count + len(images))]


def distance(scene: Scene, images: Tensor) -> Tensor:
    """Mean square difference [B] between images and the scenes rendered."""
    return (render(scene).images - images).square().mean((1, 2, 3))
