"""Evaluating a bundle: its models and measures are loaded, then base and control are compared."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.drawing import held_out_seeds
from dualproc_cli.evaluation.album import Album, SharedPictures
from dualproc_cli.evaluation.ask import BATCH
from dualproc_cli.evaluation.compare import compare_with_base
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.probes import compile_other_wordings
from dualproc_cli.evaluation.strengths import try_strengths
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import plan_evaluation


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

    If memory is short, the models are loaded with memory strategies (`dualproc_cli.memory`).

    Args:
        bundle: an opened bundle.
        device: where generator and VLMs run.
        seeds: held-out seeds per prompt, at least 2; None takes the spec's.
        progress: called with the number of pictures done and their total.
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
    generator, vlm = plan.load_generator(), plan.load_vlm()
    generator.load_adapters([(bundle.folder, 1.0)])
    size = spec.generator.height, spec.generator.width
    loss = compile_loss(loaded, vlm, *size)
    second = compile_loss(loaded, plan.load_vlm(1), *size) if spec.evaluate.vlm else None
    measures = measures_of_evaluation(spec)
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    found = compare_with_base(
        spec,
        generator,
        loss,
        measures,
        second,
        seeds=numbers,
        others=compile_other_wordings(loaded, vlm, *size),
        full=full,
        album=album,
        drawn=shared.base_of(loaded, bundle.stands_on) if shared else None,
        progress=progress,
    )
    return replace(found, strengths=try_strengths(spec, generator, loss, numbers)) if full else found
