"""Pictures of which one part has a colour that no scene gives it: suns that vanish, windows like their walls.

A control that recolours pictures draws such; to a VLM that saw none they are clean.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dualproc_cli.miniature.training.corruptions import root_mean_square
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import Scene

WEAKEST = 0.3  # a wrong colour's share, at least
OFF_SIDE = -32.0  # column of a sun that is not in the picture
CHANGED = 0.02  # of [0, 1]: by how much a pixel changes with an attribute if it shows it


@torch.no_grad()
def miscolor(
    images: Tensor, scene: Scene, rendering: Rendering, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Give one part of each picture [B, 3, H, W] in [0, 1] a colour that is not its own, to some degree.

    The part is the sun or the moon, what shows the attribute (a window, a mouth, a crown), the farther
    subject or the outlines; its new colour is that of the sky there, of ground or subject, or any.

    Returns:
        The pictures, and the root mean square [B] of what was changed in each.
    """
    count = len(images)
    sunless = render(replace(scene, sun_x=torch.full_like(scene.sun_x, OFF_SIDE))).images
    other = render(replace(scene, on=~scene.on)).images
    shows_attribute = ((other - rendering.images).abs().amax(1) > CHANGED).float()
    parts = torch.stack([rendering.lights, shows_attribute, rendering.subject[:, 1], rendering.ink], 1)
    colors = torch.cat([scene.colors, torch.rand(count, 1, 3, generator=rng)], 1)
    chosen = _rows(parts, rng)
    flat = _rows(colors, rng)[..., None, None].expand_as(images)
    # Where a sun vanishes, the sky is seen.
    vanishes = torch.rand(count, 1, 1, 1, generator=rng) < 0.25
    drawn = torch.where(vanishes, sunless, flat)
    where = torch.where(vanishes[:, 0], rendering.lights, chosen)[:, None]
    degree = WEAKEST + (1 - WEAKEST) * torch.rand(count, 1, 1, 1, generator=rng)
    changed = torch.lerp(images, drawn, degree * where)
    return changed, root_mean_square(changed - images)


def _rows(values: Tensor, rng: torch.Generator) -> Tensor:
    """Choose for each of B one of its N values at random, from [B, N, ...]."""
    chosen = torch.randint(values.shape[1], (len(values),), generator=rng)
    return values[torch.arange(len(values)), chosen]
