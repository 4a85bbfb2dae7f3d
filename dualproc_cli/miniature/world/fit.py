"""Fitting a scene to a picture, by descending the distance between the picture and the scene's render.

The distance that remains is what no scene of the world can explain.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.miniature.world.render import (
    GROUND_SHADE,
    SKY_HAZE,
    Rendering,
    by_subject_color,
    render,
)
from dualproc_cli.miniature.world.scene import (
    HORIZON,
    LOOKS,
    NIGHT,
    NOBODY,
    OUTLINE,
    SIZE,
    SUBJECTS,
    WINTER,
    Scene,
)

# Mean square difference that a farther subject must explain. Without it, one in twenty pictures of one
# subject gets a second, small one that explains a little noise; true ones are found as often with it.
FAR_COST = 4e-4
# Mean square difference that another colour must explain, for a mean square change of 1. Without it, a bare
# tree is a leafy one in the colour of the sky.
COLOR_COST = 5e-3
# Mean square difference that another look must explain; some are drawn alike, and differ in colour alone.
LOOK_COST = 2e-4
# How bright stars are at least, by their contrast to the sky around them, as a share of the world's. Of 12
# generated nights the dimmest has .58, of 12 in a palette's colours .23; of 460 others none has over .11.
DIMMEST = 0.17
AROUND = 9  # pixels: side of the window that is around a star
# Learning rate of each parameter: how far a step of the fit moves it. They are chosen so that a step of any
# parameter changes the picture by about as much.
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
    """Fit scenes to images [B, 3, H, W] in [0, 1], by projected Adam on their continuous parameters."""
    free = {name: getattr(scene, name).detach().clone().requires_grad_() for name in FIT_RATES}
    _project(free)
    optimizer = torch.optim.Adam([{"params": [value]} for value in free.values()], betas=(0.8, 0.95))
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, FIT_RATES.values(), strict=True):
            group["lr"] = rate * (1 - step / steps)
        with torch.enable_grad():
            error = render(replace(scene, **free)).images - images
            # A robust loss: large errors, which the scene cannot explain, pull no harder than small ones.
            loss = (torch.sqrt(error.square() + 0.01) - 0.1).mean((1, 2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _project(free)
    return replace(scene, **{name: value.detach() for name, value in free.items()})


@torch.no_grad()
def _project(free: dict[str, Tensor]) -> None:
    """Clamp to FIT_LIMITS, in place. A clamp inside the render would leave no gradient beyond the limits."""
    for name, (low, high) in FIT_LIMITS.items():
        free[name].clamp_(low, high)


@torch.no_grad()
def split(scene: Scene, images: Tensor) -> Scene:
    """Set the horizon to the half row that best splits the picture, and sky and ground to the best colours.

    Each row is fitted by least squares to the pixels that no subject hides. `fit` alone can get stuck at the
    traces of another horizon.
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


@torch.no_grad()
def color_subject(scene: Scene, images: Tensor) -> tuple[Scene, Tensor]:
    """Give the subjects the colour that fits the picture best, by least squares.

    `fit` alone would not get far from the colour that it starts from. Where no subject shows its colour (a
    bare tree), it stays.

    Returns:
        The scenes, and their mean square difference [B] from the images, with the cost of the new colour.
    """

    own = scene.colors[:, 2:]
    black, slope = by_subject_color(scene)
    rest = images - black - own.mT[..., None] * slope
    color = own + ((slope * rest).sum((2, 3)) / (slope.square().sum((2, 3)) + 1))[:, None]
    color = color.clamp(0, 1)
    error = (black + color.mT[..., None] * slope - images).square().mean((1, 2, 3))
    error = error + COLOR_COST * (color - own).square().mean((1, 2))
    return replace(scene, colors=torch.cat([scene.colors[:, :2], color], 1)), error


def _least_squares(
    count: Tensor, total: Tensor, weight: Tensor, slope: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit, for each of R horizons, a colour c so that ``slope * c + offset`` comes nearest to the pixel rows.

    Args:
        count: [B, H] how many pixels of each row are seen.
        total: [B, 3, H] the sum of their colours.
        weight: [R, H] how much each row counts.
        slope: [R, H].
        offset: [R, H].

    Returns:
        Colours [B, 3, R] in [0, 1], and squared errors [B, R] up to a constant that all R share.
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
def choose_look(scene: Scene, images: Tensor) -> Scene:
    """Set the look to night where there are stars, and else to one that fits better by LOOK_COST at least."""
    renderings = [render(_looking(scene, look)) for look in range(len(LOOKS))]
    errors = torch.stack([_mean_square(rendering.images - images) for rendering in renderings])
    errors = errors + LOOK_COST * (torch.arange(len(LOOKS))[:, None] != scene.look)
    errors[NIGHT] = float("inf")
    starry = _shows_stars(renderings[NIGHT], renderings[WINTER], images)
    return replace(scene, look=torch.where(starry, NIGHT, errors.argmin(0)))


def _looking(scene: Scene, look: int) -> Scene:
    return replace(scene, look=torch.full_like(scene.look, look))


def _shows_stars(night: Rendering, winter: Rendering, images: Tensor) -> Tensor:
    """Return whether images [B, 3, H, W] show the stars of a night rather than the bare sky of a winter.

    How well either fits does not tell: where the sky is as pale as stars are, a day whose sun is gone comes
    nearer to a night than to a day, and where a control dims the stars, a night comes nearer to a winter.
    """
    # The moon does not count: in winter it is a disc, of which a night's crescent is a part.
    stars = (night.lights > winter.lights + 0.2)[:, None]
    expected, found = (_contrast(one - winter.images) for one in (night.images, images))
    brightness = (stars * expected * found).sum((1, 2, 3)) / (stars * expected**2).sum((1, 2, 3)).clamp(1e-3)
    return brightness >= DIMMEST


def _contrast(images: Tensor) -> Tensor:
    """Return what is left of images [B, 3, H, W] without the mean of what is around each pixel."""
    around = F.avg_pool2d(images, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)
    return images - around


@torch.no_grad()
def choose_subject(scene: Scene, images: Tensor, slot: int) -> Scene:
    """Set the subject and the attribute of one slot to those that fit best, in the colour that fits best.

    The farther subject may be NOBODY.
    """
    kinds = range(len(SUBJECTS)) if slot == 0 else range(NOBODY, len(SUBJECTS))
    states = torch.tensor([(kind, on) for kind in kinds for on in (False, True)])
    distances = torch.stack([color_subject(_with_subject(scene, slot, state), images)[1] for state in states])
    if slot == 1:
        distances += FAR_COST * (states[:, :1] != NOBODY)
    return color_subject(_with_subject(scene, slot, states[distances.argmin(0)]), images)[0]


def _with_subject(scene: Scene, slot: int, state: Tensor) -> Scene:
    """Return the scene with kind and attribute ``state`` [2] or [B, 2] in one slot."""
    kind, on = scene.kind.clone(), scene.on.clone()
    kind[:, slot], on[:, slot] = state[..., 0], state[..., 1].bool()
    return replace(scene, kind=kind, on=on)


@torch.no_grad()
def nearer(one: Scene, other: Scene, images: Tensor) -> Scene:
    """Return, for each picture, the one of two scenes that explains it better."""
    both = Scene.concatenate([one, other])
    count = torch.arange(len(images))
    return both[
        torch.where(render_error(one, images) <= render_error(other, images), count, count + len(images))
    ]


def render_error(scene: Scene, images: Tensor) -> Tensor:
    """Return the mean square difference [B] between images and the scenes rendered."""
    return _mean_square(render(scene).images - images)


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean((1, 2, 3))
