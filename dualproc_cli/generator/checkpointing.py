"""Gradient checkpointing for any denoiser: its blocks run again in the backward pass, and remember little.

The denoisers' own ``enable_gradient_checkpointing`` is not used: some have none (HunyuanDiT, Lumina), and in
diffusers 0.42 Chroma's draws another picture and HunyuanImage's raises.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The outermost members of the lists that ``denoiser`` is made of: transformer blocks, U-Net levels."""
    found: list[nn.Module] = []
    for module in denoiser.children():
        found += module if isinstance(module, nn.ModuleList) else blocks(module)
    return found


def checkpoint_blocks(denoiser: nn.Module) -> None:
    """Make the blocks of ``denoiser`` keep their inputs alone, and run again for the backward pass."""
    for block in blocks(denoiser):
        block.forward = _again(block.forward)


def keep_blocks(denoiser: nn.Module) -> None:
    """Undo `checkpoint_blocks`."""
    for block in blocks(denoiser):
        vars(block).pop("forward", None)


def _again(forward: Any) -> Any:
    @functools.wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again
