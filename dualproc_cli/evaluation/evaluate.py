"""Evaluating a bundle: its pictures are drawn once, then each model judges all of them in turn."""

from collections.abc import Callable

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.device import release
from dualproc_cli.drawing import held_out_seeds
from dualproc_cli.evaluation.ask import BATCH
from dualproc_cli.evaluation.compare import Trial
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.drawn import Drawn, draw_both
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import MemoryPlan, plan_evaluation
from dualproc_cli.stages import stage


def evaluate_bundle(
    bundle: Bundle,
    device: torch.device,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the base generator with a bundle's control.

    One model is in memory at a time: the generator, the VLM that was trained against, the second VLM, and
    the models of measures. If memory is short, they are loaded with memory strategies
    (`dualproc_cli.memory`).

    Args:
        bundle: an opened bundle.
        device: where generator, VLMs and the models of measures run.
        seeds: held-out seeds per prompt, at least 2; None takes the spec's.
        progress: called with the number of pictures drawn and their total.

    Raises:
        SpecError: a measure cannot judge the pictures.
        UserError: a model cannot be loaded.
    """
    loaded, spec = bundle.loaded, bundle.spec
    check_measures(loaded)
    plan = plan_evaluation(loaded, bundle.manifest.memory, BATCH, device)
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    trial = Trial(spec, measures_of_evaluation(spec), _draw(bundle, plan, numbers, progress))
    release(device)
    for index, vlm in enumerate(plan.vlms):
        stage(f"asking {vlm.model} about the pictures")
        _ask(trial, bundle, plan, index)
        release(device)
    trial.measure(device)
    return trial.result(len(numbers))


def _draw(
    bundle: Bundle, plan: MemoryPlan, seeds: list[int], progress: Callable[[int, int], None]
) -> list[Drawn]:
    """Draw with a generator that is gone when this returns."""
    generator = plan.load_generator()
    generator.load_adapters([(bundle.folder, 1.0)])
    return draw_both(bundle.spec, generator, seeds, progress)


def _ask(trial: Trial, bundle: Bundle, plan: MemoryPlan, index: int) -> None:
    """Ask a VLM of the plan that is gone when this returns."""
    vlm = plan.load_vlm(index)
    loss = compile_loss(bundle.loaded, vlm, bundle.spec.generator.height, bundle.spec.generator.width)
    ask = trial.ask if index == 0 else trial.ask_second
    ask(loss, vlm.device)
