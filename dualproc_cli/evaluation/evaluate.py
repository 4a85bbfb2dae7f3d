"""Evaluating a bundle: its pictures are drawn once, then each model judges all of them in turn."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.device import release
from dualproc_cli.drawing import held_out_seeds
from dualproc_cli.evaluation.album import Album, SharedPictures
from dualproc_cli.evaluation.ask import BATCH
from dualproc_cli.evaluation.compare import Trial
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.drawn import draw_both
from dualproc_cli.evaluation.probes import compile_other_wordings
from dualproc_cli.evaluation.strengths import draw_strengths
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import MemoryPlan, plan_evaluation
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.stages import stage


def evaluate_bundle(
    bundle: Bundle,
    device: torch.device,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    full: bool = False,
    album: Album | None = None,
    shared: SharedPictures | None = None,
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
        full: whether to try more: pictures as sharing leaves them, and other strengths of the adapter.
        album: where some of the pictures are kept.
        shared: what bundles that are compared share.

    Raises:
        SpecError: a measure cannot judge the pictures.
        UserError: a model cannot be loaded.
    """
    loaded = bundle.loaded
    if shared:
        loaded = replace(loaded, spec=shared.spec_of(loaded))
    spec = loaded.spec
    check_measures(loaded)
    plan = plan_evaluation(loaded, bundle.manifest.memory, BATCH, device)
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    known = shared.base_of(loaded, bundle.stands_on) if shared else None
    generator = plan.load_generator()
    generator.load_adapters([(bundle.folder, 1.0)])
    drawn = draw_both(spec, generator, numbers, progress, album=album, known=known)
    strengths = draw_strengths(spec, generator, numbers) if full else {}
    del generator
    release(device)
    trial = Trial(spec, measures_of_evaluation(spec), drawn, full, strengths)
    for index, vlm in enumerate(plan.vlms):
        stage(f"asking {vlm.model} about the pictures")
        _ask(trial, loaded, plan, index)
        release(device)
    trial.measure(device)
    return trial.result(len(numbers))


def _ask(trial: Trial, loaded: LoadedSpec, plan: MemoryPlan, index: int) -> None:
    """Ask a VLM of the plan that is gone when this returns."""
    vlm, size = plan.load_vlm(index), (loaded.spec.generator.height, loaded.spec.generator.width)
    loss = compile_loss(loaded, vlm, *size)
    if index == 0:
        trial.ask(loss, vlm.device, compile_other_wordings(loaded, vlm, *size))
    else:
        trial.ask_second(loss, vlm.device)
