"""Measuring what a step of learning a spec costs."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from dualproc_cli.bench.compiled import measure_compiling
from dualproc_cli.bench.counters import matmul_rate
from dualproc_cli.bench.random_weights import RandomWeights
from dualproc_cli.bench.report import BenchReport, StepComparison
from dualproc_cli.bench.step import compare_steps
from dualproc_cli.device import deterministic, pick_dtype
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.learning.learner import NotFiniteError
from dualproc_cli.memory import choose, load_models, predict, with_rungs
from dualproc_cli.models.quantization import quantization
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
        counts: how many questions to ask.
        rounds: steps to measure of each kind.
        random_weights: known shapes among the spec's models, which are built with random weights, not loaded.

    Raises:
        UserError: a model cannot be used, or the spec has fewer questions.
        RunFailed: the loss or its gradient is not finite.
    """
    spec = loaded.spec
    _check(spec, counts, random_weights, device)
    texts = [*spec.prompts.train, *(text for question in spec.questions for text in question.texts)]
    models = RandomWeights(random_weights, texts)
    learn = spec.learn.model_copy(update={"steps": 2 * rounds + 2, "stop_at": None})

    def with_questions(count: int) -> LoadedSpec:
        changes = {"questions": spec.questions[:count], "learn": learn}
        return replace(loaded, spec=spec.model_copy(update=changes))

    with deterministic():
        rungs = choose(loaded, device).rungs
        generator, vlm = load_models(loaded, rungs, device, models.generator, models.vlm)
        generator.add_adapter(spec.learn.adapter, spec.learn.seed)
        dtypes = pick_dtype(spec.generator.dtype, device), vlm.dtype
        ceiling = max(matmul_rate(device, dtype) for dtype in set(dtypes))

        def measured(count: int) -> StepComparison:
            asking = with_questions(count)
            row = compare_steps(with_rungs(asking, rungs), generator, vlm, rounds, ceiling)
            return replace(row, predicted_bytes=_predicted(asking, device, rungs))

        first = with_rungs(with_questions(counts[0]), rungs)
        try:
            compiling = measure_compiling(first, generator, vlm, rounds) if spec.generator.compile else None
            rows = [measured(count) for count in counts]
        except NotFiniteError as error:
            raise RunFailed(f"{error}; a step without a finite loss is not worth measuring") from error
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
        memory=list(rungs),
        compile=compiling,
        rows=rows,
    )


def _check(
    spec: ControlSpec, counts: Sequence[int], random_weights: Sequence[str], device: torch.device
) -> None:
    """Refuse what would fail only after models have been built, which can take minutes."""
    for count in counts:
        if not 1 <= count <= len(spec.questions):
            raise UserError(
                f"--questions {count}: the spec has {len(spec.questions)} (expected 1 to as many)"
            )
    for repo in random_weights:
        if repo not in (spec.generator.model, spec.vlm.model):
            raise UserError(
                f"--random-weights {repo}: neither the generator nor the VLM here (expected one of each)"
            )
    quantization(spec.generator.quantization, device, pick_dtype(spec.generator.dtype, device), "generator")
    quantization(spec.vlm.quantization, device, pick_dtype(spec.vlm.dtype, device), "vlm")


def _predicted(loaded: LoadedSpec, device: torch.device, rungs: Sequence[str]) -> int | None:
    """Return the memory in bytes that `predict` expects; None where it cannot predict."""
    try:
        return predict(loaded, device, rungs).total
    except UserError:
        return None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {os.cpu_count()} cores" if device.type == "cpu" else str(device)
