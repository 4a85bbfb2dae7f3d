"""Spreading a denoiser over several devices: each holds some of its blocks, one after another."""

from collections.abc import Sequence

from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import compute_module_sizes
from torch import nn

from dualproc_cli.generator.blocks import blocks


def spread_blocks(denoiser: nn.Module, devices: Sequence[str]) -> None:
    """Move the blocks of ``denoiser`` to ``devices``, in order, about as many bytes to each.

    No block is divided. The result comes back to the device of what the denoiser was given.

    Args:
        denoiser: without adapter; one that it gets later goes where the weights are that it adapts.
        devices: names of at least one device; the first is that of the rest of the pipeline.
    """
    sizes = compute_module_sizes(denoiser)
    whole = blocks(denoiser)
    largest = max(sizes[name] for name, module in denoiser.named_modules() if module in whole)
    limits = dict.fromkeys(range(len(devices)), sizes[""] // len(devices))
    limits[0] += largest  # accelerate keeps as much free on the first device
    limits[len(devices) - 1] = 2 * sizes[""]  # what is left
    kinds = sorted({type(block).__name__ for block in whole})
    places = infer_auto_device_map(denoiser, max_memory=limits, no_split_module_classes=kinds)
    dispatch_model(
        denoiser,
        {name: devices[int(place)] for name, place in places.items()},
        main_device=devices[0],
        force_hooks=True,
    )
