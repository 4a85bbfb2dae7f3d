"""Asking a VLM about pictures, and about slightly changed ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.evaluation.perturb import perturbed

BATCH = 16  # pictures drawn or asked about at once


@torch.no_grad()
def ask(loss: CompositeLoss, images: Tensor) -> dict[str, Tensor]:
    """Return P(answer) [N] of every question about images [N, 3, H, W], by name."""
    parts = [loss(part).probabilities for part in images.split(BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def ask_perturbed(loss: CompositeLoss, images: Tensor) -> dict[str, Tensor]:
    """Return the lowest P(answer) [N] over the perturbations of each of images [N, 3, H, W], by question."""
    return lowest([ask(loss, version) for version in perturbed(images).values()])


def lowest(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the lowest P(answer) [N] of each question over several askings."""
    return {name: torch.stack([part[name] for part in found]).amin(0) for name in found[0]}
