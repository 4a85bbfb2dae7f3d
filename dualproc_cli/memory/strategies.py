"""Memory strategies: the ways to reduce the memory of a run, one object each.

To add one, write a class here, put it into `STRATEGIES`, and add its name to the spec's list. A new entry of
`dualproc_cli.models.quantization.BITS` becomes a strategy without a class of its own.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from dualproc_cli.device import all_devices
from dualproc_cli.generator import Generator
from dualproc_cli.generator.checkpointing import checkpoint_blocks
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.generator.spreading import spread_blocks
from dualproc_cli.generator.steered_call import text_encoders
from dualproc_cli.models.meta_tensors import saved_elsewhere
from dualproc_cli.models.quantization import BITS, Bits
from dualproc_cli.spec import GeneratorSpec, VlmSpec

logger = logging.getLogger(__name__)


class Strategy:
    """A way to reduce the memory of a run. Subclasses override the methods for what they change.

    Attributes:
        name: its name in ``memory`` of the spec.
        does: what it does, in a few words for the user.
        cost: what it costs in time.
        error: how much it changes pictures, gradients or answers, as measured; empty if it is exact.
        helps_drawing: whether it also saves memory when pictures are only drawn.
        changes_weights: whether it quantises the models, which the spec may have done already.
    """

    name: str
    does: str
    cost: str
    error: str = ""
    helps_drawing: bool = False
    changes_weights: bool = False

    def available(self, device: torch.device) -> bool:
        """Return whether it can be used on ``device``."""
        return True

    def excludes(self, other: "Strategy") -> bool:
        """Return whether it replaces ``other``."""
        return False

    def generator_spec(self, spec: GeneratorSpec) -> GeneratorSpec:
        """Return the spec of the generator to load."""
        return spec

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        """Return the spec of the VLM to load."""
        return spec

    def vlm_device(self, device: torch.device) -> torch.device:
        """Return the VLM's device, given the generator's."""
        return device

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        """Apply it to a loaded generator, which will draw ``prompts``."""

    def simulate(self, generator: Generator) -> None:
        """Apply it to a generator without weights, on which memory is estimated."""
        self.apply(generator, ())

    def saving(self) -> AbstractContextManager[Any]:
        """Return the context in which an estimated step draws; it decides how saved tensors are counted."""
        return nullcontext()

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        """Return the estimated bytes on the device, by part, with the strategy applied."""
        return parts

    def warn(self, generator: Generator) -> None:
        """Warn that the pipeline does not support it and is left unchanged."""
        logger.warning("memory: %s: %s does not support it", self.name, type(generator.pipeline).__name__)


class FreeTextEncoders(Strategy):
    """Moves the text encoders to main memory after they have encoded the prompts."""

    name = "free-text-encoders"
    does = "text encoders are moved to main memory after they have encoded the prompts"
    cost = "other prompts are encoded on the CPU"
    helps_drawing = True

    def available(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        size = generator.conventions
        with uncompiled():
            for prompt in prompts:  # their embeddings are kept
                generator.call([prompt], [0], steps=1, width=size.width, height=size.height)
        for encoder in text_encoders(generator.pipeline).values():
            encoder.to("cpu")
        if generator.device.type == "cuda":
            torch.cuda.empty_cache()

    def simulate(self, generator: Generator) -> None:
        pass

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        return {**parts, "text encoders": 0}


class MicroBatches(Strategy):
    """Draws and differentiates the pictures of a step in parts, and adds up their gradients."""

    cost = "smaller kernels, which use a large device less well"

    def __init__(self, name: str, does: str, pictures: Callable[[int], int]) -> None:
        self.name, self.does, self.pictures = name, does, pictures

    def excludes(self, other: Strategy) -> bool:
        return isinstance(other, MicroBatches)

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        generator.micro_batch = self.pictures


class CheckpointVae(Strategy):
    """Checkpoints the blocks of the VAE: they run again in the backward pass."""

    name = "checkpoint-vae"
    does = "the decoder's blocks keep only their inputs and run again in the backward pass"
    cost = "pictures are decoded twice"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        vae = getattr(generator.pipeline, "vae", None)
        if vae is None:
            return self.warn(generator)
        checkpoint_blocks(vae)


class CheckpointDenoiser(Strategy):
    """Checkpoints the blocks of the denoiser: they run again in the backward pass."""

    name = "checkpoint-denoiser"
    does = "the denoiser's blocks keep only their inputs and run again in the backward pass"
    cost = "the denoising steps that carry the gradient run twice"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        checkpoint_blocks(generator.denoiser)


class TwoDevices(Strategy):
    """Loads the VLMs on a second CUDA device."""

    name = "two-devices"
    does = "the VLM is on a second device"
    cost = "pictures and their gradient go from device to device"

    def available(self, device: torch.device) -> bool:
        return len(all_devices(device)) > 1

    def vlm_device(self, device: torch.device) -> torch.device:
        return torch.device("cuda", 1 if (device.index or 0) == 0 else 0)

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        return {name: 0 if name.endswith("vlm") else size for name, size in parts.items()}


class SpreadDenoiser(Strategy):
    """Spreads the blocks of the denoiser over all CUDA devices."""

    name = "spread-denoiser"
    does = "the denoiser's blocks are spread over all devices"
    cost = "pictures and gradients go from device to device between the blocks"
    helps_drawing = True

    def available(self, device: torch.device) -> bool:
        return len(all_devices(device)) > 1

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        spread_blocks(generator.denoiser, all_devices(generator.device))

    def simulate(self, generator: Generator) -> None:
        pass

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        return {**parts, "denoiser": parts["denoiser"] // max(torch.cuda.device_count(), 1)}


class OffloadActivations(Strategy):
    """Keeps the tensors that the generator saves for the backward pass in main memory."""

    name = "offload-activations"
    does = "the generator's tensors for the backward pass are kept in main memory"
    cost = "they are transferred twice per step"

    def available(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        generator.saving = partial(torch.autograd.graph.save_on_cpu, pin_memory=True)

    def simulate(self, generator: Generator) -> None:
        pass

    def saving(self) -> AbstractContextManager[Any]:
        return saved_elsewhere()


class TileVae(Strategy):
    """Decodes large pictures in overlapping tiles."""

    name = "tile-vae"
    does = "large pictures are decoded in tiles"
    cost = "pixels where tiles overlap are decoded more than once"
    error = (
        "pictures differ by 1.7 of 255 levels (40 dB), gradients have a cosine of .91 (an AutoencoderKL of "
        "1.1 M weights at 512 pixels)"
    )
    helps_drawing = True

    def apply(self, generator: Generator, prompts: Sequence[str]) -> None:
        vae: Any = getattr(generator.pipeline, "vae", None)
        if not hasattr(vae, "enable_tiling"):
            return self.warn(generator)
        vae.enable_tiling()


class Quantize(Strategy):
    """Quantises the frozen weights of the generator and the VLMs."""

    helps_drawing = True
    changes_weights = True

    def __init__(self, bits: Bits) -> None:
        self.name, self.error, self.bits = bits.name, bits.error, bits
        self.does, self.cost = f"frozen weights have {bits.count} bits", "slower matrix products"

    def available(self, device: torch.device) -> bool:
        return self.bits.available(device) is not None

    def excludes(self, other: Strategy) -> bool:
        return isinstance(other, Quantize)

    def generator_spec(self, spec: GeneratorSpec) -> GeneratorSpec:
        return spec.model_copy(update={"quantization": self.name})

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        return spec.model_copy(update={"quantization": self.name})


class HalfImage(Strategy):
    """Shows pictures to the VLMs at half their width and height."""

    name = "half-image"
    does = "VLMs are shown pictures at half their width and height"
    cost = "no time"
    error = "P(answer) differs by .02, its gradient at the pixels has a cosine of .59 (the miniature)"

    def vlm_spec(self, spec: VlmSpec) -> VlmSpec:
        return spec.model_copy(update={"image_scale": spec.image_scale / 2})


# In the order in which they are tried: exact ones first, starting with the cheapest.
STRATEGIES: tuple[Strategy, ...] = (
    FreeTextEncoders(),
    MicroBatches("half-batches", "half of a step's pictures are drawn at once", lambda count: -(-count // 2)),
    MicroBatches("single-pictures", "one of a step's pictures is drawn at once", lambda count: 1),
    CheckpointVae(),
    CheckpointDenoiser(),
    TwoDevices(),
    SpreadDenoiser(),
    OffloadActivations(),
    TileVae(),
    *(Quantize(bits) for bits in BITS.values()),
    HalfImage(),
)


def named(names: Sequence[str]) -> tuple[Strategy, ...]:
    """Return the strategies with these names, in the order of `STRATEGIES`; unknown names are ignored."""
    return tuple(strategy for strategy in STRATEGIES if strategy.name in names)


def change_generator(spec: GeneratorSpec, strategies: Sequence[Strategy]) -> GeneratorSpec:
    """Return ``spec`` with the changes of all strategies."""
    for strategy in strategies:
        spec = strategy.generator_spec(spec)
    return spec


def change_vlm(spec: VlmSpec, strategies: Sequence[Strategy]) -> VlmSpec:
    """Return ``spec`` with the changes of all strategies."""
    for strategy in strategies:
        spec = strategy.vlm_spec(spec)
    return spec


def with_one_more(taken: Sequence[Strategy], strategy: Strategy) -> tuple[Strategy, ...]:
    """Return ``taken`` and one more, without those that it replaces."""
    return (*(one for one in taken if not strategy.excludes(one)), strategy)
