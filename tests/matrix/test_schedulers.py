"""Every scheduler on a tiny U-Net or flow transformer: pictures, gradients, the jump to the clean picture."""

import functools

import diffusers
import flow  # noqa: F401  # adds the families that are used here
import pytest
import torch
import transformers_classic  # noqa: F401
import unet  # noqa: F401
from checks import check_differences, check_jump, check_last_step, picture
from diffusers import DiffusionPipeline
from families import adapted, plain_picture, saved

ALWAYS = ("DDIM", "EulerAncestralDiscrete", "UniPCMultistep", "FlowMatchHeunDiscrete")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
# The scheduler (its class without Scheduler), options, and the family that it serves.
SCHEDULERS = {
    "DDIM": ("DDIM", {"clip_sample": False}, "StableDiffusion"),
    "DDPM": ("DDPM", {"clip_sample": False}, "StableDiffusion"),
    "DDIMParallel": ("DDIMParallel", {"clip_sample": False}, "StableDiffusion"),
    "DDPMParallel": ("DDPMParallel", {"clip_sample": False}, "StableDiffusion"),
    "EulerDiscrete": ("EulerDiscrete", {}, "StableDiffusion"),
    "EulerAncestralDiscrete": ("EulerAncestralDiscrete", {}, "StableDiffusion"),
    "EDMEuler": ("EDMEuler", {}, "StableDiffusion"),
    "LCM": ("LCM", {"clip_sample": False}, "StableDiffusion"),
    "TCD": ("TCD", {"clip_sample": False}, "StableDiffusion"),
    "HeunDiscrete": ("HeunDiscrete", {}, "StableDiffusion"),
    "KDPM2Discrete": ("KDPM2Discrete", {}, "StableDiffusion"),
    "KDPM2AncestralDiscrete": ("KDPM2AncestralDiscrete", {}, "StableDiffusion"),
    "LMSDiscrete": ("LMSDiscrete", {}, "StableDiffusion"),
    "DPMSolverMultistep": ("DPMSolverMultistep", {}, "StableDiffusion"),
    "DPMSolverMultistep, sde": (
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver++"},
        "StableDiffusion",
    ),
    "DPMSolverMultistep, flow": ("DPMSolverMultistep", FLOW, "StableDiffusion"),
    "DPMSolverSinglestep": ("DPMSolverSinglestep", {}, "StableDiffusion"),
    "DPMSolverSDE": ("DPMSolverSDE", {}, "StableDiffusion"),
    "EDMDPMSolverMultistep": ("EDMDPMSolverMultistep", {}, "StableDiffusion"),
    "UniPCMultistep": ("UniPCMultistep", {}, "StableDiffusion"),
    "UniPCMultistep, flow": ("UniPCMultistep", FLOW, "StableDiffusion"),
    "DEISMultistep": ("DEISMultistep", {}, "StableDiffusion"),
    "SASolver": ("SASolver", {}, "StableDiffusion"),
    "PNDM": ("PNDM", {"skip_prk_steps": True}, "StableDiffusion"),
    "IPNDM": ("IPNDM", {}, "StableDiffusion"),
    "FlowMatchEulerDiscrete": ("FlowMatchEulerDiscrete", {}, "ZImage"),
    "FlowMatchEulerDiscrete, stochastic": (
        "FlowMatchEulerDiscrete",
        {"stochastic_sampling": True},
        "ZImage",
    ),
    "FlowMatchHeunDiscrete": ("FlowMatchHeunDiscrete", {}, "StableDiffusion3"),
    "FlowMatchLCM": ("FlowMatchLCM", {}, "ZImage"),
}


# In plain pipelines they draw from torch's global state, and here from the picture's seed.
GLOBAL_NOISE = ("FlowMatchEulerDiscrete, stochastic", "FlowMatchLCM", "DPMSolverSDE")


@functools.lru_cache(maxsize=1)
def learned(name):
    kind, options, model = SCHEDULERS[name]
    folder = saved(model).with_name(f"{model}, {name}")
    pipeline = DiffusionPipeline.from_pretrained(saved(model))
    pipeline.register_modules(scheduler=getattr(diffusers, f"{kind}Scheduler")(**options))
    pipeline.save_pretrained(folder)
    return adapted(model, model=str(folder)), folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in ALWAYS else pytest.mark.matrix) for name in SCHEDULERS],
)
def family(request):
    return request.param


pytestmark = pytest.mark.recorded("scheduler")


def test_images(family):
    generator, folder = learned(family)
    expected = plain_picture(DiffusionPipeline.from_pretrained(folder), SCHEDULERS[family][2])
    with generator.without_adapter():
        ours = picture(generator)
        torch.rand(1)
        assert torch.equal(picture(generator), ours)
    if family not in GLOBAL_NOISE:
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_finite_differences(family):
    check_differences(learned(family)[0])


def test_last_steps(family):
    check_last_step(learned(family)[0])


def test_x0_jump(family):
    check_jump(learned(family)[0])
