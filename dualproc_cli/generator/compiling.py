"""The denoiser's repeated blocks compiled: one compilation serves all blocks of a kind."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from dualproc_cli.errors import UserError


def compile_blocks(denoiser: Any) -> None:
    """Let the blocks that ``denoiser`` says it repeats be compiled when they are first called.

    diffusers' own ``compile_repeated_blocks`` compiles the call around a block's ``forward``. What is put
    around that later, as gradient checkpointing is, would be compiled with it, and cannot be.

    Raises:
        UserError: it names no blocks that it repeats.
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
    """Inside the block nothing is compiled: for what is drawn once, or at another size than all else."""
    return torch.compiler.set_stance("force_eager")
