"""How far down the memory ladder a run goes: as far as its device asks, and no further."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dualproc_cli.errors import UserError
from dualproc_cli.memory.estimate import GIB, Estimate, predict, predict_drawing
from dualproc_cli.memory.skeleton import local_folder
from dualproc_cli.memory.strategies import OF_THE_VLM, QUANTIZATIONS, RUNGS, further, possible
from dualproc_cli.spec import GeneratorSpec, LoadedSpec, VlmSpec

HEADROOM = 0.92  # of a device: the rest goes to its kernels' workspaces and to fragmentation
# Models whose files are smaller than the device by this factor fit: nothing is predicted.
LARGE = 50


@dataclass(frozen=True)
class Choice:
    """The rungs that a run needs on a device.

    Attributes:
        rungs: their names.
        estimate: what it takes with them; None where nothing was predicted.
        budget: bytes that the device has for it.
        reason: one line for the user; empty where there is nothing to say.
    """

    rungs: tuple[str, ...]
    estimate: Estimate | None
    budget: int
    reason: str


def choose(loaded: LoadedSpec, device: torch.device) -> Choice:
    """Go down the ladder until learning the spec fits the device.

    A list in ``generator.memory`` is taken as it is. Models that are small for the device, and those that
    cannot be predicted, are left as they are.
    """
    generator, vlm = loaded.spec.generator, loaded.spec.vlm
    names = possible(_quantized(loaded), device)

    def predicted(rungs: tuple[str, ...]) -> Estimate:
        return predict(loaded, device, rungs)

    return _choose(generator.memory, names, (generator, vlm), device, predicted)


def choose_to_draw(spec: GeneratorSpec, prompts: Sequence[str], batch: int, device: torch.device) -> Choice:
    """Go down the ladder until drawing ``batch`` pictures at once fits the device, as `choose` does.

    Of a list in ``generator.memory``, which was for learning, what this device cannot do is left out.
    """
    names = [name for name in possible(spec.quantization != "none", device) if name not in OF_THE_VLM]
    asked = spec.memory
    if asked != "auto":
        asked = tuple(name for name in asked if name in names)

    def predicted(rungs: tuple[str, ...]) -> Estimate:
        return predict_drawing(spec, prompts, batch, device, rungs)

    return _choose(asked, names, (spec,), device, predicted)


def deeper(loaded: LoadedSpec, rungs: Sequence[str], device: torch.device) -> tuple[str, ...]:
    """``rungs`` and the next below them, for whoever ran out of memory; none at the bottom."""
    taken = {*rungs, *(QUANTIZATIONS if "nf4" in rungs else ())}
    below = next((name for name in possible(_quantized(loaded), device) if name not in taken), None)
    return further(rungs, below) if below else ()


def _quantized(loaded: LoadedSpec) -> bool:
    return {loaded.spec.generator.quantization, loaded.spec.vlm.quantization} != {"none"}


def _choose(
    asked: str | Sequence[str],
    names: Sequence[str],
    models: tuple[GeneratorSpec | VlmSpec, ...],
    device: torch.device,
    predicted: Callable[[tuple[str, ...]], Estimate],
) -> Choice:
    budget = round(HEADROOM * device_bytes(device))
    if asked != "auto":
        reason = f"memory: {', '.join(asked) or 'no rung'}, as generator.memory says"
        return Choice(tuple(asked), None, budget, reason)
    if _bytes_on_disk(models) < budget / LARGE:
        return Choice((), None, budget, "")
    try:
        rungs, estimate = _descend(names, predicted, budget)
    except UserError as error:
        return Choice((), None, budget, f"memory: not predicted, so no rung is taken ({error})")
    fits = "fits" if estimate.total <= budget else "does not fit"
    taken = [f"{name}: {does}" for name, does in RUNGS.items() if name in rungs]
    done = "; ".join(taken) or "nothing to be done"
    reason = f"memory: {estimate.total / GIB:.1f} GiB {fits} the {budget / GIB:.1f} GiB of {device} ({done})"
    return Choice(rungs, estimate, budget, reason)


def _descend(
    names: Sequence[str], predicted: Callable[[tuple[str, ...]], Estimate], budget: int
) -> tuple[tuple[str, ...], Estimate]:
    """Take rung after rung until the estimate is within the budget; those that save nothing are left out."""
    rungs: tuple[str, ...] = ()
    estimate = predicted(rungs)
    for rung in names:
        if estimate.total <= budget:
            break
        tried = further(rungs, rung)
        try:
            found = predicted(tried)
        except UserError:
            continue  # this rung is not for these models
        if found.total < estimate.total:
            rungs, estimate = tried, found
    return rungs, estimate


def _bytes_on_disk(models: Sequence[GeneratorSpec | VlmSpec]) -> float:
    """Size of the weights of ``models``; unknown (infinite) where they are not in a folder."""
    return sum(
        math.inf if folder is None else sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        for folder in map(local_folder, models)
    )


def device_bytes(device: torch.device) -> int:
    """The memory of a device; of the CPU, the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
