"""x0-jump's clean estimate: given the true noise or velocity, every scheduler family finds the true x0."""

import diffusers
import pytest
import torch

from dualproc_cli.errors import UserError
from dualproc_cli.generator.clean_estimate import clean_estimate

# How each scheduler mixes clean latents and noise: by cumulated alphas, by sigmas around x0, or along a line.
SCHEDULERS = [
    ("DDIMScheduler", {"clip_sample": False}, "alphas"),
    ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}, "alphas"),
    ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}, "alphas"),
    ("DDPMScheduler", {"clip_sample": False}, "alphas"),
    ("PNDMScheduler", {"skip_prk_steps": True}, "alphas"),
    ("PNDMScheduler", {"skip_prk_steps": True, "prediction_type": "v_prediction"}, "alphas"),
    ("TCDScheduler", {}, "alphas"),
    ("EulerDiscreteScheduler", {}, "sigmas"),
    ("EulerAncestralDiscreteScheduler", {}, "sigmas"),
    ("HeunDiscreteScheduler", {}, "sigmas"),
    ("KDPM2DiscreteScheduler", {}, "sigmas"),
    ("LMSDiscreteScheduler", {}, "sigmas"),
    ("DPMSolverMultistepScheduler", {}, "solver"),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "solver",
    ),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "solver"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, "solver"),
    ("DPMSolverSinglestepScheduler", {}, "solver"),
    ("UniPCMultistepScheduler", {}, "solver"),
    ("UniPCMultistepScheduler", {"predict_x0": False}, "solver"),
    ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "line"),
    ("DEISMultistepScheduler", {}, "solver"),
    ("SASolverScheduler", {}, "solver"),
    ("SASolverScheduler", {"algorithm_type": "noise_prediction"}, "solver"),
    ("FlowMatchEulerDiscreteScheduler", {}, "line"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "line"),
    ("FlowMatchHeunDiscreteScheduler", {}, "line"),
    ("FlowMatchLCMScheduler", {}, "line"),
]


def make(name: str, options: dict) -> object:
    try:
        scheduler = getattr(diffusers, name)(**options)
        scheduler.set_timesteps(5)
    except ImportError as error:
        pytest.skip(str(error))
    return scheduler


@pytest.mark.parametrize(("name", "options", "mixing"), SCHEDULERS)
def test_the_clean_estimate_is_exact_for_a_perfect_denoiser(name, options, mixing):
    scheduler = make(name, options)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    index = 0 if getattr(scheduler, "order", 1) == 2 or name == "PNDMScheduler" else 2
    timestep = scheduler.timesteps[index]
    if index:
        for earlier in range(index):  # schedulers count their steps
            scheduler.step(torch.zeros_like(clean), scheduler.timesteps[earlier], torch.zeros_like(clean))
    if mixing == "alphas":
        level = scheduler.alphas_cumprod[int(timestep)]
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
    elif mixing == "sigmas":
        alpha, sigma = torch.ones(()), scheduler.sigmas[index]
    elif mixing == "solver":
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index])
    else:
        alpha, sigma = 1 - scheduler.sigmas[index], scheduler.sigmas[index]
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    answer = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": alpha * noise - sigma * clean,
        "flow_prediction": noise - clean,
    }["flow_prediction" if mixing == "line" else kind]
    sample = (alpha * clean + sigma * noise).requires_grad_()
    estimate = clean_estimate(scheduler, scheduler.step, answer, timestep, sample)
    torch.testing.assert_close(estimate.float(), clean, atol=2e-3, rtol=1e-3)
    assert estimate.requires_grad or kind == "sample"


def test_a_scheduler_without_clean_estimate_is_named():
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(5)
    zeros = torch.zeros(1, 4, 8, 8)
    with pytest.raises(UserError, match=r"IPNDMScheduler gives no clean estimate; use last-steps"):
        clean_estimate(scheduler, scheduler.step, zeros, scheduler.timesteps[0], zeros)
