"""Changes that some pipelines need before they can be differentiated, each with its reason."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

# Arguments that every pipeline is called with, if it takes them.
CALL_ARGUMENTS = {
    # PixArt, SANA and others would draw at the nearest of their trained sizes and resize the picture.
    "use_resolution_binning": False,
    # PixArt and others would rewrite the prompt where two further packages happen to be installed.
    "clean_caption": False,
    # LongCat would draw what its language model makes of the prompt.
    "enable_prompt_rewrite": False,
    # ERNIE-Image too, with a language model of its own.
    "use_pe": False,
    # Ideogram's default is a schedule for its own number of steps, which excludes a guidance scale.
    "guidance_schedule": None,
    # Qwen-Image 2.1 computes the prompt's keys in the first step and keeps them. With a graph that begins
    # later, no gradient would reach the adapter through them.
    "use_kv_cache": False,
}


@dataclass(frozen=True)
class Workaround:
    """A change that is made once to a loaded pipeline.

    Attributes:
        name: what changes, in a few words.
        reason: why.
        apply: takes the pipeline and its denoiser, and returns whether there was anything to change.
    """

    name: str
    reason: str
    apply: Callable[[DiffusionPipeline, nn.Module], bool]


def apply_workarounds(pipeline: DiffusionPipeline, denoiser: nn.Module) -> tuple[Workaround, ...]:
    """Apply the workarounds that ``pipeline`` needs, and return those that changed something."""
    return tuple(workaround for workaround in WORKAROUNDS if workaround.apply(pipeline, denoiser))


def _drop_watermark(pipeline: DiffusionPipeline, denoiser: nn.Module) -> bool:
    found = [name for name in ("watermark", "watermarker") if getattr(pipeline, name, None) is not None]
    for name in found:
        setattr(pipeline, name, None)
    return bool(found)


def _train_experts(pipeline: DiffusionPipeline, denoiser: nn.Module) -> bool:
    experts = [module for module in denoiser.modules() if hasattr(module, "moe_infer")]
    for module in experts:
        module.training = True  # only this module: its children stay in eval mode
    return bool(experts)


def _leave_float16(pipeline: DiffusionPipeline, denoiser: nn.Module) -> bool:
    vae = getattr(pipeline, "vae", None)
    if vae is None or vae.dtype != torch.float16 or not getattr(vae.config, "force_upcast", False):
        return False
    pipeline.to(dtype=torch.bfloat16)
    return True


WORKAROUNDS = (
    Workaround(
        "no watermark",
        "drawing it turns the picture into an array, which cuts the graph",
        _drop_watermark,
    ),
    Workaround(
        "experts in training mode",
        "HiDream's mixture of experts drops gradients in eval mode; its training path draws the same picture",
        _train_experts,
    ),
    Workaround(
        "bfloat16 for float16",
        "SDXL's VAE is cast to float32 for decoding and back afterwards, which spoils the graph for backward",
        _leave_float16,
    ),
)
