"""``dualproc bench``: what a step of learning costs here."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.spec import load_spec

COUNTS = (1, 3, 5, 8)  # questions, of the built-in spec


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
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures a step.")] = None,
    questions: Annotated[
        list[int] | None,
        typer.Option("--questions", metavar="K", help="Ask the first K questions only; may be repeated."),
    ] = None,
    random_weights: Annotated[
        list[str] | None,
        typer.Option(
            "--random-weights",
            metavar="REPO",
            help="Use a generator or a VLM of this hub model's shape, with random weights, not downloaded; "
            "may be given once for each.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a step of learning: seconds by part, memory, FLOPs, and what the shared prefix saves.

    Beside each step, in the same run, stands the same step with one full VLM forward a question. With
    --set generator.compile=true, also whether compiling pays.

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

    found = measure(
        loaded, device=pick_device(device), counts=counts, rounds=steps, random_weights=random_weights or ()
    )
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(
        f"{found['generator']} and {found['vlm']} on {found['device']}, {' and '.join(found['dtypes'])}: a "
        f"step of {found['batch_size']} pictures of {found['width']} x {found['height']} in "
        f"{found['denoising_steps']} denoising step(s). Matrix products reach "
        f"{found['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s. 'full' is the same step with one full VLM "
        "forward a question, 'VLM' its ratio without the generator.",
        markup=False,
        soft_wrap=True,
    )
    if found["memory"]:
        console.print(f"Memory strategies: {', '.join(found['memory'])}.", markup=False, soft_wrap=True)
    if found["compile"]:
        console.print(_compiled(found["compile"]), markup=False, soft_wrap=True)
    console.print(_summary(found["rows"]))
    for row in found["rows"]:
        console.print(_parts(row))


def _compiled(found: dict[str, Any]) -> str:
    pays = f"pays after {found['pays_after']} steps" if found["pays_after"] else "never pays"
    return (
        f"Compiled, a step takes {1000 * found['seconds']:.0f} ms instead of "
        f"{1000 * found['plain_seconds']:.0f}; to compile took {found['compiling_seconds']:.0f} s: it {pays}."
    )


def _summary(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        *(
            "questions",
            "mode",
            "step ms",
            "full ms",
            "ratio",
            "VLM",
            "pictures/s",
            "GFLOP",
            "of matmul",
            "GiB",
            "predicted",
        ),
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for row in rows:
        shared, full = row["shared"], row["full"]
        table.add_row(
            str(row["questions"]),
            row["mode"],
            f"{1000 * shared['seconds']:.0f}",
            f"{1000 * full['seconds']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['vlm']['ratio']:.2f}",
            f"{shared['pictures_per_second']:.1f}",
            f"{shared['flops'] / 1e9:.1f}",
            f"{shared['share_of_ceiling']:.0%}",
            f"{shared['peak_bytes'] / 2**30:.2f}",
            f"{row['predicted_bytes'] / 2**30:.2f}" if row["predicted_bytes"] else "",
        )
    return table


def _parts(row: dict[str, Any]) -> Table:
    table = Table(
        f"{row['questions']} question(s)",
        *("step ms", "share", "GFLOP", "of matmul", "full ms"),
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    shared, full = row["shared"]["parts"], row["full"]["parts"]
    total = sum(part["seconds"] for part in shared.values())
    for name in dict.fromkeys([*shared, *full]):
        own, other = shared.get(name), full.get(name)
        cells = ["", "", "", ""]
        if own:
            cells = [
                f"{1000 * own['seconds']:.1f}",
                f"{own['seconds'] / total:.0%}",
                f"{own['flops'] / 1e9:.2f}",
                f"{own['share_of_ceiling']:.0%}",
            ]
        table.add_row(name, *cells, f"{1000 * other['seconds']:.1f}" if other else "")
    return table
