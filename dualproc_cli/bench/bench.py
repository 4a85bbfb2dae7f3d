"""Measuring what a step of learning a spec costs."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from dualproc_cli.bench.compiled import measure_compiling
from dualproc_cli.bench.counters import matmul_rate
from dualproc_cli.bench.report import BenchReport, StepComparison
from dualproc_cli.bench.step import compare_steps
from dualproc_cli.device import deterministic, pick_dtype
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.learning.learner import NotFiniteError
from dualproc_cli.memory import MemoryPlan, estimate_learning, plan_learning
from dualproc_cli.spec import ControlSpec, LoadedSpec


def bench(
    loaded: LoadedSpec,
    *,
    device: torch.device,
    counts: Sequence[int],
    rounds: int,
    random_weights: Sequence[str] = (),
) -> BenchReport:
    """Measure steps of learning ``loaded`` with its first k questions, for each k of ``counts``.

    Kernels are deterministic, as they are while learning.

    Args:
        loaded: the spec.
        device: where both models run.
        counts: numbers of questions to ask, each a row of the report.
        rounds: steps to measure of each kind.
        random_weights: models of the spec, of known shapes, to build with random weights instead of loading.

    Raises:
        UserError: a model cannot be used, the spec has fewer questions, or ``random_weights`` names a model
            that is not in it.
        RunFailed: the loss or its gradient is not finite.
    """
    spec = loaded.spec
    _check(spec, counts, random_weights)
    learn = spec.learn.model_copy(update={"steps": 2 * rounds + 2, "extend": 1.0, "stop_at": None})

    def with_questions(count: int) -> LoadedSpec:
        changes = {"questions": spec.questions[:count], "learn": learn}
        return replace(loaded, spec=spec.model_copy(update=changes))

    with deterministic():
        plan = plan_learning(loaded, device)
        generator, vlm = plan.load_generator(random_weights), plan.load_vlm(random=random_weights)
        generator.add_adapter(spec.learn.adapter, spec.learn.seed)
        if spec.steered:
            generator.add_steering(spec.steered, spec.learn.seed)
        dtypes = pick_dtype(spec.generator.dtype, device), vlm.dtype
        ceiling = max(matmul_rate(device, dtype) for dtype in set(dtypes))

        def measured(count: int) -> StepComparison:
            asking = with_questions(count)
            row = compare_steps(asking, generator, vlm, rounds, ceiling)
            return replace(row, predicted_bytes=_predicted(asking, plan))

        first = with_questions(counts[0])
        try:
            compiling = measure_compiling(first, generator, vlm, rounds) if spec.generator.compile else None
            rows = [measured(count) for count in counts]
        except NotFiniteError as error:
            raise RunFailed(
                f"{error}; only a finite loss can be measured: choose another model or dtype"
            ) from error
    return BenchReport(
        generator=spec.generator.model,
        vlm=spec.vlm.model,
        random_weights=list(random_weights),
        device=_name(device),
        threads=torch.get_num_threads(),
        dtypes=[str(dtype).removeprefix("torch.") for dtype in dtypes],
        width=spec.generator.width,
        height=spec.generator.height,
        denoising_steps=spec.generator.steps,
        batch_size=learn.batch_size,
        rounds=rounds,
        matmul_flops_per_second=ceiling,
        memory=plan.names,
        compile=compiling,
        rows=rows,
    )


def _check(spec: ControlSpec, counts: Sequence[int], random_weights: Sequence[str]) -> None:
    for count in counts:
        if not 1 <= count <= len(spec.questions):
            raise UserError(
                f"--questions {count}: the spec has {len(spec.questions)} (expected a number up to that)"
            )
    for repo in random_weights:
        if repo not in (spec.generator.model, spec.vlm.model):
            raise UserError(
                f"--random-weights {repo}: not a model of the spec (give at most one generator and one VLM)"
            )


def _predicted(loaded: LoadedSpec, plan: MemoryPlan) -> int | None:
    """Return the memory in bytes that `estimate_learning` expects; None if it cannot estimate."""
    try:
        return estimate_learning(loaded, plan.device, plan.strategies).total
    except UserError:
        return None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {os.cpu_count()} cores" if device.type == "cpu" else str(device)
