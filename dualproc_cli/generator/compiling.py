"""Compiling the denoiser's repeated blocks: one compilation serves all blocks of a class."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from dualproc_cli.errors import UserError


def compile_blocks(denoiser: Any) -> None:
    """Compile the blocks that ``denoiser`` repeats, each when it is first called.

    diffusers' own ``compile_repeated_blocks`` compiles a block's ``__call__``, and with it what is wrapped
    around ``forward`` later. Gradient checkpointing is such a wrapper, and it cannot be compiled.

    Raises:
        UserError: the denoiser's class does not name its repeated blocks.
    """
    names = getattr(denoiser, "_repeated_blocks", None)
    blocks = [module for module in denoiser.modules() if type(module).__name__ in (names or ())]
    if not blocks:
        raise UserError(
            f"generator.compile: {type(denoiser).__name__} does not name its repeated blocks, and so it "
            "cannot be compiled; set it to false"
        )
    for block in blocks:
        block.forward = torch.compile(block.forward)


def uncompiled() -> AbstractContextManager[Any]:
    """Run without compilation inside the block, for pictures drawn once or at an unusual size."""
    return torch.compiler.set_stance("force_eager")
