"""Evaluating a bundle: everything that it names is loaded, then compared."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.evaluation.compare import compare_with_base
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import choose, load_models, with_rungs
from dualproc_cli.vlm import load_vlm


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
        seeds: held-out seeds per prompt, at least 2; None takes the spec's.
        progress: called with the pictures done and their total.

    Raises:
        SpecError: a measure cannot judge the pictures.
        UserError: a model cannot be loaded.
    """
    loaded, spec = bundle.loaded, bundle.spec
    check_measures(loaded)
    rungs = choose(loaded, device).rungs
    generator, vlm = load_models(loaded, rungs, device)
    generator.load_adapters([(bundle.folder, 1.0)])
    size = spec.generator.height, spec.generator.width
    loss = compile_loss(with_rungs(loaded, rungs), vlm, *size)
    second = None
    if spec.evaluate.vlm is not None:
        asked = replace(loaded, spec=spec.model_copy(update={"vlm": spec.evaluate.vlm}))
        second = compile_loss(asked, load_vlm(spec.evaluate.vlm, device), *size)
    measures = measures_of_evaluation(spec)
    return compare_with_base(spec, generator, loss, measures, second, seeds, progress)
