"""Memory strategies: everything that can be done to need less memory, one object each.

A new strategy is a class here, a place in `STRATEGIES`, and its name in the spec's list. A new number of bits
(`dualproc_cli.models.quantization`) is a strategy by itself.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from dualproc_cli.generator import Generator
from dualproc_cli.generator.checkpointing import checkpoint_blocks
from dualproc_cli.models.meta_tensors import saved_elsewhere
from dualproc_cli.models.quantization import BITS, Bits
from dualproc_cli.spec import GeneratorSpec, VlmSpec

logger = logging.getLogger(__name__)


class Strategy:
    """One way to need less memory.

    Attributes:
        name: as ``memory`` in the spec has it.
        does: what it does, in a few words for the user.
        cost: what it costs in time.
        error: what it changes in pictures, gradients or answers, as measured; empty where it is exact.
        helps_drawing: whether it also matters where nothing is learned.
        changes_weights: whether models have other weights with it, which a user may have chosen already.
    """

    name: str
    does: str
    cost: str
    error: str = ""
    helps_drawing: bool = False
    changes_weights: bool = False

    def available(self, device: torch.device) -> bool:
        """Say whether it does anything on ``device``."""
        return True

    def excludes(self, other: "Strategy") -> bool:
        """Say whether it takes the place of ``other``."""
        return False

    def generator_spec(self, spec: GeneratorSpec) -> GeneratorSpec:
        """Change what is loaded as the generator."""
        return spec

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        """Change what is loaded as a VLM."""
        return spec

    def vlm_device(self, device: torch.device) -> torch.device:
        """Choose where the VLM is, if the generator is on ``device``."""
        return device

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        """Change a loaded generator, which will draw ``prompts``."""

    def simulate(self, generator: Generator) -> None:
        """Change a generator without weights, on which memory is estimated."""
        self.apply(generator, ())

    def saving(self) -> AbstractContextManager[Any]:
        """Enter while a step is estimated: counts what autograd saves as this strategy has it."""
        return nullcontext()

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        """Change the estimated bytes on the device, by part."""
        return parts

    def warn(self, generator: Generator) -> None:
        """Tell the user that a pipeline cannot do it, and is left as it is."""
        logger.warning("memory: %s: %s cannot do it", self.name, type(generator.pipeline).__name__)


class FreeTextEncoders(Strategy):
    name = "free-text-encoders"
    does = "text encoders leave the device once the prompts are encoded"
    cost = "a prompt that comes later is encoded in main memory"
    helps_drawing = True

    def available(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        generator.release_text_encoders(prompts)

    def simulate(self, generator: Generator) -> None:
        pass

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        return {**parts, "text encoders": 0}


class CheckpointVae(Strategy):
    name = "checkpoint-vae"
    does = "the decoder keeps only its blocks' inputs"
    cost = "pictures are decoded twice"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        vae = getattr(generator.pipeline, "vae", None)
        if vae is None:
            return self.warn(generator)
        checkpoint_blocks(vae)


class CheckpointDenoiser(Strategy):
    name = "checkpoint-denoiser"
    does = "the denoiser keeps only its blocks' inputs"
    cost = "the denoising steps that carry the gradient are drawn twice"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        checkpoint_blocks(generator.denoiser)


class TwoDevices(Strategy):
    name = "two-devices"
    does = "the VLM lives on a second device"
    cost = "pictures and their gradient go from device to device"

    def available(self, device: torch.device) -> bool:
        return device.type == "cuda" and torch.cuda.device_count() > 1

    def vlm_device(self, device: torch.device) -> torch.device:
        return torch.device("cuda", 1 if (device.index or 0) == 0 else 0)

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        return {name: 0 if name.endswith("vlm") else size for name, size in parts.items()}


class OffloadActivations(Strategy):
    name = "offload-activations"
    does = "what the backward pass needs waits in main memory"
    cost = "two transfers of it a step"

    def available(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        generator.saving = partial(torch.autograd.graph.save_on_cpu, pin_memory=True)

    def simulate(self, generator: Generator) -> None:
        pass

    def saving(self) -> AbstractContextManager[Any]:
        return saved_elsewhere()


class TileVae(Strategy):
    name = "tile-vae"
    does = "large pictures are decoded in tiles"
    cost = "the tiles overlap"
    error = (
        "pictures are 1.7 of 255 levels apart (40 dB), gradients at a cosine of .91 (an AutoencoderKL of "
        "1.1 M weights at 512 pixels)"
    )
    helps_drawing = True

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        vae: Any = getattr(generator.pipeline, "vae", None)
        if not hasattr(vae, "enable_tiling"):
            return self.warn(generator)
        vae.enable_tiling()


class Quantize(Strategy):
    """Frozen weights of fewer bits, of generator and VLM."""

    helps_drawing = True
    changes_weights = True

    def __init__(self, bits: Bits) -> None:
        self.name, self.error, self.bits = bits.name, bits.error, bits
        self.does, self.cost = f"frozen weights of {bits.count} bits", "slower matrix products"

    def available(self, device: torch.device) -> bool:
        return self.bits.available(device) is not None

    def excludes(self, other: Strategy) -> bool:
        return isinstance(other, Quantize)

    def generator_spec(self, spec: GeneratorSpec) -> GeneratorSpec:
        return spec.model_copy(update={"quantization": self.name})

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        return spec.model_copy(update={"quantization": self.name})


class HalfImage(Strategy):
    name = "half-image"
    does = "VLMs are shown pictures at half their size"
    cost = "none"
    error = "P(answer) is .02 apart, its gradient in the pixels at a cosine of .59 (the miniature)"

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        return spec.model_copy(update={"image_scale": spec.image_scale / 2})


# In the order in which they are tried: exact ones first, of those the cheapest.
STRATEGIES: tuple[Strategy, ...] = (
    FreeTextEncoders(),
    CheckpointVae(),
    CheckpointDenoiser(),
    TwoDevices(),
    OffloadActivations(),
    TileVae(),
    *(Quantize(bits) for bits in BITS.values()),
    HalfImage(),
)


def named(names: Sequence[str]) -> tuple[Strategy, ...]:
    """Return the strategies of these names, in the order of `STRATEGIES`."""
    return tuple(strategy for strategy in STRATEGIES if strategy.name in names)


def with_one_more(taken: Sequence[Strategy], strategy: Strategy) -> tuple[Strategy, ...]:
    """Return ``taken`` and one more, without those that it takes the place of."""
    return (*(one for one in taken if not strategy.excludes(one)), strategy)
