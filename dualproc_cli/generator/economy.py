"""What a loaded generator can do to need less memory: each measure of the ladder, applied to its pipeline."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dualproc_cli.generator.checkpointing import checkpoint_blocks

logger = logging.getLogger(__name__)


def economize(pipeline: Any, component: str, rungs: Sequence[str]) -> None:
    """Apply those of ``rungs`` that change the pipeline; what it cannot do is left out, with a warning."""
    for rung in rungs:
        if rung in MEASURES and not MEASURES[rung](pipeline, component):
            logger.warning("generator.memory: %s: %s cannot do it", rung, type(pipeline).__name__)


def saved_elsewhere(rungs: Sequence[str], device: torch.device) -> AbstractContextManager[Any]:
    """Inside the block, what autograd saves is kept in main memory, if the rungs say so."""
    if "offload-activations" not in rungs or device.type == "cpu":
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")


def _checkpoint(module: Any) -> bool:
    if module is None:
        return False
    checkpoint_blocks(module)
    return True


def _tile(vae: Any) -> bool:
    if not hasattr(vae, "enable_tiling"):
        return False
    vae.enable_tiling()
    return True


MEASURES: dict[str, Callable[[Any, str], bool]] = {
    "checkpoint-vae": lambda pipeline, component: _checkpoint(getattr(pipeline, "vae", None)),
    "checkpoint-denoiser": lambda pipeline, component: _checkpoint(getattr(pipeline, component)),
    "tile-vae": lambda pipeline, component: _tile(getattr(pipeline, "vae", None)),
}
