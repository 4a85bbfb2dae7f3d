"""The generator families of the matrix: each a builder of tiny components, saved as real models are."""

import functools
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.spec import AdapterSpec, GeneratorSpec

PROMPT = "a red house by the sea"
SEED = 7
STEPS = 2
GUIDANCE = 3.0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Family:
    """A pipeline class of diffusers and how a tiny one is made."""

    name: str
    """The class without its ``Pipeline``."""
    build: Callable[[], dict[str, Any]]
    """Makes the arguments of the class."""
    size: int = 32
    """Width and height of its pictures, in pixels."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What its call is given besides, so that tiny tokenizers suffice."""


FAMILIES: dict[str, Family] = {}
_folder = tempfile.TemporaryDirectory()


def family(name: str, size: int = 32, **arguments: Any) -> Callable[[Callable], Callable]:
    """Add a builder to `FAMILIES`."""

    def add(build: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        FAMILIES[name] = Family(name, build, size, arguments)
        return build

    return add


@functools.cache
def saved(name: str) -> Path:
    """The folder of a family's model, made once a test session."""
    torch.manual_seed(0)
    components = FAMILIES[name].build()
    for component in components.values():
        if isinstance(component, nn.Module):
            awaken(component)
    path = Path(_folder.name) / name
    getattr(diffusers, f"{name}Pipeline")(**components).save_pretrained(path)
    return path


def awaken(module: nn.Module) -> None:
    """Give every matrix weights of ordinary size.

    Where a new model starts with zeros (gates, last layers), all gradients before them would be zero.
    """
    noise = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        flat = parameter.data.flatten(1) if parameter.ndim > 1 else parameter.data[None]
        if parameter.ndim > 1 or not flat.any():
            fresh = torch.randn(parameter.shape, generator=noise) / max(flat.shape[1], 4) ** 0.5
            parameter.data = fresh.to(parameter.dtype)


def load(name: str, **changes: Any) -> Generator:
    """Load a family as the commands do."""
    settings = {
        "model": str(saved(name)),
        "width": FAMILIES[name].size,
        "height": FAMILIES[name].size,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        **changes,
    }
    return load_generator(GeneratorSpec(**settings), CPU)


def adapted(name: str, **changes: Any) -> Generator:
    """`load`, with an adapter of random weights."""
    generator = load(name, **changes)
    generator.add_adapter(AdapterSpec(rank=2, scale=1.0), seed=0)
    noise = torch.Generator().manual_seed(0)
    for parameter in generator.adapter_parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=noise)
    return generator


def plain_picture(pipeline: DiffusionPipeline, name: str) -> Tensor:
    """What diffusers draws when a user calls it: [1, 3, H, W] in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    takes = inspect.signature(type(pipeline).__call__).parameters
    arguments = {
        "prompt": [PROMPT],
        "generator": [torch.Generator().manual_seed(SEED)],
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "width": FAMILIES[name].size,
        "height": FAMILIES[name].size,
        "use_resolution_binning": False,
        "clean_caption": False,
        "output_type": "np",
        **FAMILIES[name].arguments,
    }
    images = pipeline(**{key: value for key, value in arguments.items() if key in takes})[0]
    color, opacity = torch.as_tensor(images).permute(0, 3, 1, 2).split((3, images.shape[3] - 3), dim=1)
    return color * opacity + (1 - opacity) if opacity.numel() else color
