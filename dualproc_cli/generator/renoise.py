"""Starting a denoising step from a finished picture with fresh noise, as x0-jump does with ``renoise``."""

import copy
from typing import Any

from torch import Tensor

from dualproc_cli.errors import UserError


def renoised(scheduler: Any, picture: Tensor, noise: Tensor, index: int) -> Tensor:
    """Return clean latents with as much noise as the scheduler's step ``index`` expects.

    Args:
        scheduler: a diffusers scheduler whose timesteps are set.
        picture: clean latents [B, ...].
        noise: in the shape of ``picture``, as large as the pipeline draws it for its first step.
        index: of one of ``scheduler.timesteps``.

    Raises:
        UserError: the scheduler cannot add noise.
    """
    # The original has stepped, and would add the noise of the step at which it stands.
    scheduler = copy.copy(scheduler)
    scheduler._step_index = scheduler._begin_index = None
    timesteps = scheduler.timesteps[index].expand(len(picture)).to(picture.device)
    unit = noise / getattr(scheduler, "init_noise_sigma", 1.0)
    if hasattr(scheduler, "scale_noise"):  # flow matching
        return scheduler.scale_noise(picture, timesteps, unit).to(picture.dtype)
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(picture, unit, timesteps).to(picture.dtype)
    raise UserError(
        f"learn.gradient.renoise: {type(scheduler).__name__} adds no noise to a picture; leave renoise out"
    )
