"""``dualproc evaluate``: before and after, on seeds and prompts that were never learned on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dualproc_cli.commands.options import AsJson, Device

if TYPE_CHECKING:
    from dualproc_cli.evaluation import Comparison

TITLES = {
    "measures": "measured success",
    "questions": "P(answer)",
    "second_vlm": "P(answer), second VLM",
    "artefacts": "artefacts",
}


def evaluate(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `dualproc learn` wrote, or a .zip of it.")
    ],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=2, metavar="N", help="Held-out seeds per prompt; the spec's by default."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare the base generator with the learned control on held-out seeds and prompts.

    Example: dualproc evaluate horizon-position.dualproc --seeds 64
    """
    from dualproc_cli.bundle import Bundle
    from dualproc_cli.device import pick_device
    from dualproc_cli.evaluation import evaluate_bundle

    opened = Bundle.open(bundle)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("pictures", total=None)
        result = evaluate_bundle(
            opened,
            pick_device(device),
            seeds,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(result.as_json()))
    else:
        _print(result)


def _print(result: "Comparison") -> None:
    console = Console(highlight=False)
    table = Table(
        "",
        "base",
        "learned",
        "base, held-out prompts",
        "learned, held-out prompts",
        box=None,
        header_style="dim",
    )
    for field, title in TITLES.items():
        rows = getattr(result, field)
        if rows:
            table.add_row(f"[dim]{title}[/dim]")
        for name, figures in rows.items():
            table.add_row(
                f"  {name}", *("" if value is None else f"{value:.3f}" for value in figures.values())
            )
    console.print(table)
    if result.spread:
        kept = Table("spread kept, learned over base", "", box=None, header_style="dim")
        for name, ratio in result.spread.items():
            kept.add_row(f"  {name}", f"{ratio:.2f}")
        console.print(kept)
    console.print(f"{result.seeds} held-out seeds per prompt", style="dim")
