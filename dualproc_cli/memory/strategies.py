"""The rungs of the memory ladder: what can be done to need less, and what each changes in a spec."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dualproc_cli.spec import GeneratorSpec, LoadedSpec
from dualproc_cli.spec.model import MemoryRung

# What each does, the cheapest first, and behind it what it costs. Of the tiles that was measured, with an
# AutoencoderKL of 1.1 M weights at 512 pixels: pictures are 1.7 of 255 levels apart (40 dB), gradients at a
# cosine of 0.91. Checkpoints change neither, so they come first.
RUNGS: dict[MemoryRung, str] = {
    "free-text-encoders": "text encoders leave the device once the prompts are encoded",  # nothing
    "checkpoint-vae": "the decoder keeps only its blocks' inputs",  # decodes twice
    "checkpoint-denoiser": "the denoiser keeps only its blocks' inputs",  # draws the last steps twice
    "two-devices": "the VLM lives on a second device",  # a copy of the picture
    "tile-vae": "large pictures are decoded in tiles",  # small differences
    "offload-activations": "what backward needs waits in main memory",  # two transfers of it a step
    "int8": "frozen weights of 8 bits",  # slower products, faint differences
    "nf4": "frozen weights of 4 bits",  # slower products, small differences
    "half-view": "the VLM is shown the picture at half its size",  # detail
}
QUANTIZATIONS: tuple[MemoryRung, ...] = ("int8", "nf4")
NEED_CUDA = ("free-text-encoders", "offload-activations", "nf4")
OF_THE_VLM = ("two-devices", "half-view")


def possible(quantized: bool, device: torch.device) -> list[MemoryRung]:
    """The rungs that make sense on a device, the cheapest first, for models ``quantized`` already or not."""
    impossible: set[str] = set(QUANTIZATIONS) if quantized else set()
    if device.type != "cuda":
        impossible |= set(NEED_CUDA)
    if second_device(device) is None:
        impossible.add("two-devices")
    return [name for name in RUNGS if name not in impossible]


def further(rungs: Sequence[str], rung: str) -> tuple[str, ...]:
    """``rungs`` and one more; weights have 8 bits or 4."""
    return (*(name for name in rungs if not {name, rung} <= set(QUANTIZATIONS)), rung)


def with_rungs(loaded: LoadedSpec, rungs: Sequence[str]) -> LoadedSpec:
    """The spec with what the rungs change in it: quantisation and the VLM's view."""
    vlm = loaded.spec.vlm.model_copy(update=_quantization(rungs))
    if "half-view" in rungs:
        vlm = vlm.model_copy(update={"image_scale": vlm.image_scale / 2})
    generator = quantized(loaded.spec.generator, rungs)
    return replace(loaded, spec=loaded.spec.model_copy(update={"generator": generator, "vlm": vlm}))


def quantized(spec: GeneratorSpec, rungs: Sequence[str]) -> GeneratorSpec:
    """The generator with what the rungs change in it."""
    return spec.model_copy(update=_quantization(rungs))


def second_device(device: torch.device) -> torch.device | None:
    """Another CUDA device than ``device``."""
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    return torch.device("cuda", 1 if (device.index or 0) == 0 else 0)


def _quantization(rungs: Sequence[str]) -> dict[str, str]:
    taken = [name for name in QUANTIZATIONS if name in rungs]
    return {"quantization": taken[-1]} if taken else {}
