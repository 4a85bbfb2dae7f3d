"""``dualproc bench``: measure what a step of learning costs on this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.commands.tables import print_table
from dualproc_cli.spec import load_spec
from dualproc_cli.terminal import Console, echo

if TYPE_CHECKING:  # these load torch
    from dualproc_cli.bench import BenchReport
    from dualproc_cli.bench.report import CompilingCost, StepComparison

COUNTS = (1, 3, 5, 8)  # numbers of questions of the built-in spec


def bench(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SPEC]", help="Control spec (YAML); by default eight questions on the miniature."
        ),
    ] = None,
    overrides: Settings = None,
    device: Device = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to measure; medians are shown.")] = 5,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures per step.")] = None,
    questions: Annotated[
        list[int] | None,
        typer.Option("--questions", metavar="K", help="Ask the first K questions only; may be repeated."),
    ] = None,
    random_weights: Annotated[
        list[str] | None,
        typer.Option(
            "--random-weights",
            metavar="REPO",
            help="Build the generator or the VLM in the shape of this hub model with random weights, without "
            "a download; may be given once for each.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a step of learning: seconds by part, memory, FLOPs, and what the shared prefix saves.

    Each step is compared, in the same run, with the same step with one full VLM forward per question.
    With --set generator.compile=true, the report also shows whether compiling pays off.

    Example: dualproc bench --questions 1 --questions 5 --steps 10
    """
    from dualproc_cli.known_models.catalog import is_generator

    settings = [*(overrides or ()), *([] if batch is None else [f"learn.batch_size={batch}"])]
    for repo in random_weights or ():
        settings.append(f"{'generator' if is_generator(repo) else 'vlm'}.model={repo}")
    built_in = Path(__file__).parents[1] / "bench" / "spec.yaml"
    loaded = load_spec(spec or built_in, settings)
    counts = questions or (COUNTS if spec is None else [len(loaded.spec.questions)])
    from dualproc_cli.bench import bench as measure  # loads torch
    from dualproc_cli.device import pick_device

    report = measure(
        loaded, device=pick_device(device), counts=counts, rounds=steps, random_weights=random_weights or ()
    )
    if as_json:
        echo(json.dumps(report.as_json()))
    else:
        _print(report)


def _print(report: "BenchReport") -> None:
    console = Console(highlight=False)
    console.print(
        f"{report.generator} and {report.vlm} on {report.device}, {' and '.join(report.dtypes)}: a step of "
        f"{report.batch_size} pictures of {report.width} x {report.height} in {report.denoising_steps} "
        f"denoising step(s). Matrix products reach {report.matmul_flops_per_second / 1e9:.0f} GFLOP/s. "
        "'full' is the same step with one full VLM forward per question, 'ratio' is full over step, "
        "and 'VLM' is that ratio for the VLM alone.",
        markup=False,
        soft_wrap=True,
    )
    if report.memory:
        console.print(f"Memory strategies: {', '.join(report.memory)}.", markup=False, soft_wrap=True)
    if report.compile:
        console.print(_compiling(report.compile), markup=False, soft_wrap=True)
    print_table(_steps(report.rows))
    for row in report.rows:
        print_table(_parts(row))


def _compiling(cost: "CompilingCost") -> str:
    pays = "never pays off" if cost.pays_after is None else f"pays off after {cost.pays_after} steps"
    return (
        f"Compiled, a step takes {1000 * cost.seconds:.0f} ms instead of {1000 * cost.plain_seconds:.0f}; "
        f"compiling took {cost.compiling_seconds:.0f} s and {pays}."
    )


def _steps(rows: list["StepComparison"]) -> Table:
    columns = ("questions", "mode", "step ms", "full ms", "ratio", "VLM", "pictures/s", "GFLOP", "of matmul")
    table = Table(*columns, "GiB", "predicted", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(
            str(row.questions),
            row.mode,
            f"{1000 * row.shared.seconds:.0f}",
            f"{1000 * row.full.seconds:.0f}",
            f"{row.ratio:.2f}",
            f"{row.vlm.ratio:.2f}",
            f"{row.shared.pictures_per_second:.1f}",
            f"{row.shared.flops / 1e9:.1f}",
            f"{row.shared.share_of_ceiling:.0%}",
            f"{row.shared.peak_bytes / 2**30:.2f}",
            f"{row.predicted_bytes / 2**30:.2f}" if row.predicted_bytes else "",
        )
    return table


def _parts(row: "StepComparison") -> Table:
    columns = (f"{row.questions} question(s)", "step ms", "share", "GFLOP", "of matmul", "full ms")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    shared, full = row.shared.parts, row.full.parts
    total = sum(part.seconds for part in shared.values())
    for name in dict.fromkeys([*shared, *full]):
        cells = ["", "", "", ""]
        if part := shared.get(name):
            cells = [
                f"{1000 * part.seconds:.1f}",
                f"{part.seconds / total:.0%}",
                f"{part.flops / 1e9:.2f}",
                f"{part.share_of_ceiling:.0%}",
            ]
        table.add_row(name, *cells, f"{1000 * full[name].seconds:.1f}" if name in full else "")
    return table
