"""Compiling the denoiser's repeated blocks: one compilation serves all blocks of a class."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from dualproc_cli.errors import UserError


def compile_blocks(denoiser: Any) -> None:
    """Compile the blocks that ``denoiser`` repeats, each when it is first called.

    diffusers' own ``compile_repeated_blocks`` compiles the call around a block's ``forward``, and with it
    what is wrapped around ``forward`` later. Gradient checkpointing is, and cannot be compiled.

    Raises:
        UserError: the denoiser's class does not name its repeated blocks.
    """
    names = getattr(denoiser, "_repeated_blocks", None)
    blocks = [module for module in denoiser.modules() if type(module).__name__ in (names or ())]
    if not blocks:
        raise UserError(
            f"generator.compile: {type(denoiser).__name__} names no blocks that it repeats; set it to false"
        )
    for block in blocks:
        block.forward = torch.compile(block.forward)


def uncompiled() -> AbstractContextManager[Any]:
    """Run without compilation inside the block: for what is drawn once, or at a size of its own."""
    return torch.compiler.set_stance("force_eager")
