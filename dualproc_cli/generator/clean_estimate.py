"""The clean picture that a scheduler predicts at one of its steps: the estimator of x0-jump."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.generator.schedulers import working_schedulers

# These solvers convert the model's output to noise instead of data (`algorithm_type` of their configuration).
NOISE_PREDICTING = {"dpmsolver", "sde-dpmsolver", "deis", "noise_prediction"}


def clean_estimate(
    scheduler: Any,
    step: Callable[..., Any],
    model_output: Tensor,
    timestep: Tensor,
    sample: Tensor,
    **options: Any,
) -> Tensor:
    """Predict the clean latents x0 from the noisy ones at the current step, as the scheduler itself does.

    Args:
        scheduler: a diffusers scheduler whose timesteps are set.
        step: its own ``step`` method, for schedulers whose output contains x0.
        model_output: the denoiser's output for ``sample``, after guidance, in the shape of ``sample``.
        timestep: one of ``scheduler.timesteps``.
        sample: noisy latents of any shape.
        options: further arguments of ``step``.

    Returns:
        x0, in the shape of ``sample``.

    Raises:
        UserError: the scheduler gives no clean estimate.
    """
    if hasattr(scheduler, "convert_model_output"):  # the DPM-Solver, DEIS, UniPC and SA families
        return _converted(scheduler, model_output, timestep, sample)
    if type(scheduler).__name__.startswith("FlowMatch"):
        return _straight(scheduler, model_output, timestep, sample)
    output = step(model_output, timestep, sample, **{**options, "return_dict": True})
    for name in ("pred_original_sample", "denoised"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)
    if hasattr(scheduler, "alphas_cumprod"):
        return _from_alphas(scheduler, model_output, timestep, sample)
    raise UserError(
        f"learn.gradient.through: x0-jump: {type(scheduler).__name__} gives no clean estimate; "
        f"use last-steps, or a model with one of {', '.join(working_schedulers('x0 jump'))}"
    )


def _converted(scheduler: Any, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    _place(scheduler, timestep)
    converted = scheduler.convert_model_output(model_output, sample=sample)
    predicts_noise = getattr(scheduler.config, "algorithm_type", None) in NOISE_PREDICTING
    if not predicts_noise and getattr(scheduler, "predict_x0", True):
        return converted
    # x_t = alpha x0 + sigma eps
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index])
    return (sample - sigma * converted) / alpha


def _straight(scheduler: Any, velocity: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    # Flow matching: one straight Euler step to the last sigma, which is 0 (1 where sigmas are inverted).
    _place(scheduler, timestep)
    distance = scheduler.sigmas[-1] - scheduler.sigmas[scheduler.step_index]
    return (sample.float() + distance * velocity.float()).to(velocity.dtype)


def _from_alphas(scheduler: Any, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
    """Invert x_t = sqrt(a) x0 + sqrt(1 - a) eps (Song et al. 2021, eq. 9; v: Salimans and Ho 2022)."""
    alpha = scheduler.alphas_cumprod[int(timestep)].to(sample)
    match scheduler.config.prediction_type:
        case "epsilon":
            return (sample - torch.sqrt(1 - alpha) * model_output) / torch.sqrt(alpha)
        case "v_prediction":
            return torch.sqrt(alpha) * sample - torch.sqrt(1 - alpha) * model_output
        case _:
            return model_output


def _place(scheduler: Any, timestep: Tensor) -> None:
    # Schedulers look up their step index only when they step for the first time.
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
