"""The ladder: what can be done to need less memory, the cheapest first, and how far down it a run goes."""

import math
import os
from dataclasses import dataclass, replace

import torch

from dualproc_cli.errors import UserError
from dualproc_cli.memory.predict import GIB, Estimate, predict
from dualproc_cli.memory.skeleton import local_folder
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.spec.model import MemoryRung

HEADROOM = 0.92  # of a device: the rest goes to its kernels' workspaces and to fragmentation


# What each rung does, and behind it what it costs.
RUNGS: dict[MemoryRung, str] = {
    "free-text-encoders": "text encoders leave the device once the prompts are encoded",  # nothing
    "checkpoint-vae": "the decoder keeps only its blocks' inputs",  # decodes twice
    "checkpoint-denoiser": "the denoiser keeps only its blocks' inputs",  # draws the last steps twice
    "two-devices": "the VLM lives on a second device",  # a copy of the picture
    "tile-vae": "large pictures are decoded in tiles",  # faint differences where tiles meet
    "offload-activations": "what backward needs waits in main memory",  # two transfers of it a step
    "int8": "frozen weights of 8 bits",  # slower products, faint differences
    "nf4": "frozen weights of 4 bits",  # slower products, small differences
    "half-view": "the VLM is shown the picture at half its size",  # detail
}
# Models whose files are smaller than the device by this factor fit: nothing is predicted.
LARGE = 50
NEED_CUDA = ("free-text-encoders", "offload-activations", "int8", "nf4")


@dataclass(frozen=True)
class Choice:
    """The rungs that a run needs on a device.

    Attributes:
        loaded: the spec with what the rungs change in it.
        rungs: their names.
        estimate: what it takes with them; None where nothing was predicted.
        budget: bytes that the device has for it.
        reason: one line for the user.
    """

    loaded: LoadedSpec
    rungs: tuple[str, ...]
    estimate: Estimate | None
    budget: int
    reason: str


def choose(loaded: LoadedSpec, device: torch.device) -> Choice:
    """Go down the ladder until the spec fits the device; a list in ``generator.memory`` is taken as it is.

    Models that are small for the device, and those that cannot be predicted, are left as they are.
    """
    asked = loaded.spec.generator.memory
    budget = round(HEADROOM * device_bytes(device))
    if asked != "auto":
        reason = f"memory: {', '.join(asked) or 'no rung'}, as generator.memory says"
        return Choice(with_rungs(loaded, asked), tuple(asked), None, budget, reason)
    if _bytes_on_disk(loaded) < budget / LARGE:
        return Choice(loaded, (), None, budget, "")
    rungs: tuple[str, ...] = ()
    try:
        estimate = predict(loaded, device)
    except UserError as error:
        return Choice(loaded, (), None, budget, f"memory: not predicted, so no rung is taken ({error})")
    for rung in possible(loaded, device):
        if estimate.total <= budget:
            break
        tried = (*(name for name in rungs if (name, rung) != ("int8", "nf4")), rung)
        try:
            found = predict(with_rungs(loaded, tried), device, tried)
        except UserError:
            continue  # this rung is not for these models
        if found.total < estimate.total:
            rungs, estimate = tried, found
    fits = "fits" if estimate.total <= budget else "does not fit"
    taken = [f"{name}: {does}" for name, does in RUNGS.items() if name in rungs]
    done = "; ".join(taken) or "nothing to be done"
    reason = f"memory: {estimate.total / GIB:.1f} GiB {fits} the {budget / GIB:.1f} GiB of {device} ({done})"
    return Choice(with_rungs(loaded, rungs), rungs, estimate, budget, reason)


def possible(loaded: LoadedSpec, device: torch.device) -> list[str]:
    """The rungs that make sense for a spec on a device, the cheapest first."""
    spec = loaded.spec
    impossible = set()
    if device.type != "cuda":
        impossible |= set(NEED_CUDA)
    if second_device(device) is None:
        impossible.add("two-devices")
    if {spec.generator.quantization, spec.vlm.quantization} != {"none"}:
        impossible |= {"int8", "nf4"}
    return [name for name in RUNGS if name not in impossible]


def deeper(choice: Choice, device: torch.device) -> tuple[str, ...]:
    """The rungs in force and the next below them, for whoever ran out of memory; none at the bottom."""
    below = next((name for name in possible(choice.loaded, device) if name not in choice.rungs), None)
    return (*choice.rungs, below) if below else ()


def with_rungs(loaded: LoadedSpec, rungs: tuple[str, ...]) -> LoadedSpec:
    """The spec with what the rungs change in it: quantisation and the VLM's view."""
    generator, vlm = loaded.spec.generator, loaded.spec.vlm
    for name in ("int8", "nf4"):
        if name in rungs:
            generator = generator.model_copy(update={"quantization": name})
            vlm = vlm.model_copy(update={"quantization": name})
    if "half-view" in rungs:
        vlm = vlm.model_copy(update={"view": vlm.view / 2})
    spec = loaded.spec.model_copy(update={"generator": generator, "vlm": vlm})
    return replace(loaded, spec=spec)


def _bytes_on_disk(loaded: LoadedSpec) -> float:
    """Size of the weights of generator and VLM; unknown (infinite) where they are not in a folder."""
    folders = [local_folder(spec) for spec in (loaded.spec.generator, loaded.spec.vlm)]
    return sum(
        math.inf if folder is None else sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        for folder in folders
    )


def second_device(device: torch.device) -> torch.device | None:
    """Another CUDA device than ``device``."""
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    return torch.device("cuda", 1 if (device.index or 0) == 0 else 0)


def device_bytes(device: torch.device) -> int:
    """The memory of a device; of the CPU, the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
