"""From a spec to what a step of learning it costs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dualproc_cli.bench.compiled import compiled
from dualproc_cli.bench.counters import matmul_rate
from dualproc_cli.bench.step import compare
from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.learning.learner import NotFiniteError
from dualproc_cli.memory import MemoryPlan, estimate_learning, plan_learning
from dualproc_cli.spec import ControlSpec, LoadedSpec

SPEC = Path(__file__).with_name("spec.yaml")


def bench(
    loaded: LoadedSpec,
    *,
    device: torch.device,
    counts: Sequence[int],
    rounds: int,
    random_weights: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure steps of learning ``loaded`` with its first k questions, for each k of ``counts``.

    Args:
        loaded: the spec.
        device: where both models run.
        counts: how many questions to ask.
        rounds: steps to measure of each kind.
        random_weights: known shapes among the spec's models, to be built, not loaded.

    Returns:
        what was measured on what, the ``memory`` strategies that were taken, ``rows``, one a count
        (see `compare`) with the ``predicted_bytes`` of its step (see `estimate_learning`), and ``compile``,
        where the spec says ``generator.compile`` (see `compiled`). Plain data, as JSON has it.

    Raises:
        UserError: a model cannot be used, or the spec has not so many questions.
        RunFailed: the loss or its gradient is no number.
    """
    spec = loaded.spec
    _check(spec, counts, random_weights)
    plan = plan_learning(loaded, device)
    generator, vlm = plan.load_generator(random_weights), plan.load_vlm(random=random_weights)
    generator.add_adapter(spec.learn.adapter, spec.learn.seed)
    dtypes = pick_dtype(spec.generator.dtype, device), vlm.dtype
    ceiling = max(matmul_rate(device, dtype) for dtype in set(dtypes))
    learn = spec.learn.model_copy(update={"steps": 2 * rounds + 2, "stop_at": None})

    def asking(count: int) -> LoadedSpec:
        changes = {"questions": spec.questions[:count], "learn": learn}
        return replace(loaded, spec=spec.model_copy(update=changes))

    def measured(count: int) -> dict[str, Any]:
        row = compare(asking(count), generator, vlm, rounds, ceiling)
        return {**row, "predicted_bytes": _predicted(asking(count), plan)}

    first = asking(counts[0])
    try:
        paid = compiled(first, generator, vlm, rounds) if spec.generator.compile else None
        rows = [measured(count) for count in counts]
    except NotFiniteError as error:
        raise RunFailed(f"{error}; a step without a finite loss is not worth measuring") from error
    return {
        "generator": spec.generator.model,
        "vlm": spec.vlm.model,
        "random_weights": list(random_weights),
        "device": _name(device),
        "threads": torch.get_num_threads(),
        "dtypes": [str(dtype).removeprefix("torch.") for dtype in dtypes],
        "width": spec.generator.width,
        "height": spec.generator.height,
        "denoising_steps": spec.generator.steps,
        "batch_size": learn.batch_size,
        "rounds": rounds,
        "matmul_flops_per_second": ceiling,
        "memory": plan.names,
        "compile": paid,
        "rows": rows,
    }


def _check(spec: ControlSpec, counts: Sequence[int], random_weights: Sequence[str]) -> None:
    for count in counts:
        if not 1 <= count <= len(spec.questions):
            raise UserError(
                f"--questions {count}: the spec has {len(spec.questions)} (expected 1 to as many)"
            )
    for repo in random_weights:
        if repo not in (spec.generator.model, spec.vlm.model):
            raise UserError(
                f"--random-weights {repo}: neither the generator nor the VLM here; give one of each"
            )


def _predicted(loaded: LoadedSpec, plan: MemoryPlan) -> int | None:
    """What `estimate_learning` says of the memory; None where it cannot say."""
    try:
        return estimate_learning(loaded, plan.device, plan.strategies).total
    except UserError:
        return None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {os.cpu_count()} cores" if device.type == "cpu" else str(device)
