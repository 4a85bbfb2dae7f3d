"""Scenes of the procedural world, made by hand."""

import torch

from dualproc_cli.miniature.world.scene import DAY, FAMILY_COLORS, NOBODY, SUBJECTS, Scene


def make_scene(
    near="house",
    far=None,
    *,
    horizon=40.0,
    outline=1.5,
    x=(32.0, 20.0),
    base=(56.0, 46.0),
    scale=(1.0, 0.7),
    on=(False, False),
    look=DAY,
    colors=FAMILY_COLORS[0],
    sun_x=50.0,
):
    """Return one scene; of each pair the nearer subject comes first."""
    kinds = [SUBJECTS.index(near), SUBJECTS.index(far) if far else NOBODY]
    return Scene(
        kind=torch.tensor([kinds]),
        look=torch.tensor([look]),
        horizon=torch.tensor([horizon]),
        colors=torch.as_tensor(colors)[None],
        outline=torch.tensor([outline]),
        x=torch.tensor([x]),
        base=torch.tensor([base]),
        scale=torch.tensor([scale]),
        on=torch.tensor([on]),
        sun_x=torch.tensor([sun_x]),
    )
