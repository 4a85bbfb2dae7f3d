"""``dualproc evaluate``: before and after, on seeds and prompts that were never learned on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dualproc_cli.commands.options import AsJson, Device

if TYPE_CHECKING:
    from dualproc_cli.evaluation import Comparison
    from dualproc_cli.evaluation.comparison import ArtefactReport, Figures, GoalReport

COLUMNS = ("base", "learned", "base, held-out prompts", "learned, held-out prompts")


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
    goals = Table("", *COLUMNS, box=None, header_style="dim")
    successes = {name: found.success for name, found in result.measures.items() if found.success}
    _add(goals, "measured success", successes.items())
    _add(
        goals, "measured value", ((_named(name, goal), goal.value) for name, goal in result.measures.items())
    )
    _add(goals, "P(answer)", result.questions.items())
    _add(goals, "P(answer), second VLM", result.second_vlm.items())
    console.print(goals)
    artefacts = Table("artefacts", *COLUMNS[:2], "ratio", *COLUMNS[2:], "ratio", box=None, header_style="dim")
    for name, found in result.artefacts.items():
        base, learned, base_held_out, learned_held_out = found.value.values()
        cells = (base, learned, found.ratio, base_held_out, learned_held_out, found.ratio_held_out)
        artefacts.add_row(f"  {_named(name, found)}", *map(_shown, cells))
    console.print(artefacts)
    kept = Table("spread over seeds", "base", "learned", "ratio", box=None, header_style="dim")
    for name, spread in result.spread.items():
        kept.add_row(f"  {name}", *map(_shown, (spread.base, spread.learned, spread.ratio)))
    console.print(kept)
    for line in _models(result):
        console.print(line, style="dim")
    console.print(f"{result.seeds} held-out seeds per prompt", style="dim")


def _add(table: Table, title: str, rows: "Iterable[tuple[str, Figures]]") -> None:
    """Add rows under a title, which stays away where there are none."""
    for index, (name, figures) in enumerate(rows):
        if index == 0:
            table.add_row(f"[dim]{title}[/dim]")
        table.add_row(f"  {name}", *map(_shown, figures.values()))


def _named(name: str, found: "GoalReport | ArtefactReport") -> str:
    """The name with its unit, and with the share of pictures that were judged where that is not all."""
    notes = [found.source.unit] if found.source.unit else []
    least = min(share for share in found.judged.values() if share is not None)
    if least < 1:
        notes.append(f"{least:.0%} judged")
    return f"{name} ({', '.join(notes)})" if notes else name


def _models(result: "Comparison") -> list[str]:
    """A line for each model that measures judged by."""
    sources = [
        *(found.source for found in result.measures.values()),
        *(found.source for found in result.artefacts.values()),
        *(found.source for found in result.spread.values()),
    ]
    models = dict.fromkeys((source.model, source.revision, source.licence) for source in sources)
    return [
        f"measured by {model}"
        + (f" at {revision[:12]}" if revision else "")
        + (f" ({licence})" if licence else "")
        for model, revision, licence in models
        if model
    ]


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"
