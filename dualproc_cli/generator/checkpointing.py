"""Gradient checkpointing for any denoiser: blocks keep only their inputs and run again in backward.

diffusers' own ``enable_gradient_checkpointing`` is not used: HunyuanDiT and Lumina do not support it, and in
diffusers 0.42 it changes Chroma's picture and raises for HunyuanImage.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dualproc_cli.generator.blocks import blocks


def checkpoint_blocks(denoiser: nn.Module) -> None:
    """Make the blocks of ``denoiser`` keep only their inputs and run again in the backward pass."""
    for block in blocks(denoiser):
        block.forward = _again(block)


def _again(block: nn.Module) -> Any:
    forward = block.forward

    @functools.wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        processors = [
            (module, module.processor) for module in block.modules() if hasattr(module, "processor")
        ]

        def run(*args: Any, **kwargs: Any) -> Any:
            with _in_place(processors):
                return forward(*args, **kwargs)

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    return again


@contextmanager
def _in_place(processors: list[tuple[nn.Module, Any]]) -> Iterator[None]:
    # Perturbed-attention guidance replaces attention processors during a call. In the backward pass, which
    # comes after the call, the original ones are back.
    before = [(module, module.processor) for module, _ in processors]
    try:
        for module, processor in processors:
            module.processor = processor
        yield
    finally:
        for module, processor in before:
            module.processor = processor
