"""Evaluating a bundle: everything it names is loaded, then compared."""

from collections.abc import Callable

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.evaluation.compare import BATCH, Comparison, compare
from dualproc_cli.evaluation.judge import Judge
from dualproc_cli.memory import plan_evaluation


def evaluate_bundle(
    bundle: Bundle,
    device: torch.device,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the base generator with a bundle's control.

    Where memory is short, both models are loaded as for learning it (`dualproc_cli.memory`).

    Args:
        bundle: an opened bundle.
        device: where generator and VLM live.
        seeds: held-out seeds per prompt; None takes the spec's.
        progress: called with the pictures done and their total.

    Raises:
        UserError: a model cannot be loaded, or a measure has nothing to judge.
    """
    spec = bundle.spec
    judge = Judge(spec) if spec.evaluate.measures else None
    plan = plan_evaluation(bundle.loaded, bundle.manifest.memory, BATCH, device)
    generator, vlm = plan.load_generator(), plan.load_vlm()
    generator.load_adapters([(bundle.folder, 1.0)])
    size = spec.generator.height, spec.generator.width
    loss = compile_loss(bundle.loaded, vlm, *size)
    second = None
    if spec.evaluate.vlm is not None:
        second = compile_loss(bundle.loaded, plan.load_vlm(1), *size)
    return compare(bundle.loaded, generator, loss, judge, second, seeds, progress)
