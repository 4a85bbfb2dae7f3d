"""Evaluating a bundle: its models and measures are loaded, then base and control are compared."""

from collections.abc import Callable

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.drawing import held_out_seeds
from dualproc_cli.evaluation.ask import BATCH
from dualproc_cli.evaluation.compare import compare_with_base
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import plan_evaluation


def evaluate_bundle(
    bundle: Bundle,
    device: torch.device,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the base generator with a bundle's control.

    If memory is short, the models are loaded with memory strategies (`dualproc_cli.memory`).

    Args:
        bundle: an opened bundle.
        device: where generator and VLMs run.
        seeds: held-out seeds per prompt, at least 2; None takes the spec's.
        progress: called with the number of pictures done and their total.

    Raises:
        SpecError: a measure cannot judge the pictures.
        UserError: a model cannot be loaded.
    """
    loaded, spec = bundle.loaded, bundle.spec
    check_measures(loaded)
    plan = plan_evaluation(loaded, bundle.manifest.memory, BATCH, device)
    generator, vlm = plan.load_generator(), plan.load_vlm()
    generator.load_adapters([(bundle.folder, 1.0)])
    size = spec.generator.height, spec.generator.width
    loss = compile_loss(loaded, vlm, *size)
    second = compile_loss(loaded, plan.load_vlm(1), *size) if spec.evaluate.vlm else None
    measures = measures_of_evaluation(spec)
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    return compare_with_base(spec, generator, loss, measures, second, seeds=numbers, progress=progress)
