"""``dualproc evaluate``: before and after, on seeds and prompts that were never learned on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device, Strict
from dualproc_cli.commands.tables import print_table
from dualproc_cli.models.source import require_models
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Console, echo

if TYPE_CHECKING:
    from dualproc_cli.evaluation import Comparison
    from dualproc_cli.evaluation.comparison import Figures

COLUMNS = ("base", "learned", "held out: base", "learned")  # the prompts are held out


def evaluate(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `dualproc learn` wrote, or a .zip of it.")
    ],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=2, metavar="N", help="Held-out seeds per prompt; the spec's by default."),
    ] = None,
    device: Device = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Compare the base generator with the learned control on held-out seeds and prompts.

    A picture is right if it reaches every goal, and clean if it has no more artefacts than the base
    generator's own pictures. The verdict follows from their shares, by a rule that is printed with it.

    Example: dualproc evaluate horizon-position.dualproc --seeds 64
    """
    from dualproc_cli.bundle import Bundle

    opened = Bundle.open(bundle)
    spec = opened.spec
    require_models(spec.generator, spec.vlm, spec.evaluate.vlm)
    with importing(spec.generator, spec.vlm, spec.evaluate.vlm, measures=spec.evaluate.measures):
        from dualproc_cli.device import pick_device
        from dualproc_cli.evaluation import evaluate_bundle, verdict_of

    result = evaluate_bundle(
        opened,
        pick_device(device),
        seeds,
        lambda done, total: stage(f"drawing pictures: {done} of {total}"),
    )
    stage("")
    verdict = verdict_of(result)
    if as_json:
        echo(json.dumps({"verdict": verdict.as_json(), **result.as_json()}))
    else:
        _print(result)
        Console(highlight=False).print(f"[bold]{verdict.name}[/bold]: {verdict.reason}", soft_wrap=True)
    if strict and verdict.name != "learned":
        raise typer.Exit(1)


def _print(result: "Comparison") -> None:
    console = Console(highlight=False)
    pictures = Table(Column("pictures", no_wrap=True), *COLUMNS, box=None, header_style="dim")
    shares = {"right": result.right, "clean": result.clean, "right and clean": result.right_and_clean}
    for label, figures in shares.items():
        if figures is not None:
            pictures.add_row(f"  {label}", *map(_percent, figures.values()))
    print_table(pictures)
    for line in _rules(result):
        console.print(f"  {line}", style="dim", soft_wrap=True, markup=False)
    goals = Table(Column("", no_wrap=True), *COLUMNS, "unit", box=None, header_style="dim")
    measures = [(_labelled(name, goal.judged), goal) for name, goal in result.measures.items()]
    _add(goals, "measured success", [(label, goal.success, "") for label, goal in measures if goal.success])
    # A value without a unit repeats the success.
    values = [(label, goal.value, goal.source.unit) for label, goal in measures if goal.source.unit]
    _add(goals, "measured value", values)
    _add(goals, "P(answer)", [(name, figures, "") for name, figures in result.questions.items()])
    _add(goals, "P(answer), perturbed", [(name, found, "") for name, found in result.perturbed.items()])
    _add(goals, "P(answer), second VLM", [(name, figures, "") for name, figures in result.second_vlm.items()])
    print_table(goals)
    ratios = (*COLUMNS[:2], "ratio", *COLUMNS[2:], "ratio")
    artefacts = Table(Column("artefacts", no_wrap=True), *ratios, "unit", box=None, header_style="dim")
    for name, found in result.artefacts.items():
        base, learned, base_held_out, learned_held_out = found.value.values()
        cells = (base, learned, found.ratio, base_held_out, learned_held_out, found.ratio_held_out)
        artefacts.add_row(f"  {_labelled(name, found.judged)}", *map(_shown, cells), found.source.unit)
    print_table(artefacts)
    kept = Table(
        "spread over the seeds of a prompt", "base", "learned", "ratio", box=None, header_style="dim"
    )
    for name, spread in result.spread.items():
        label = f"{name}, a goal" if spread.fixed else name
        kept.add_row(f"  {label}", *map(_shown, (spread.base, spread.learned, spread.ratio)))
    print_table(kept)
    for line in _models(result):
        console.print(line, style="dim", soft_wrap=True, markup=False)
    console.print(f"{result.seeds} held-out seeds per prompt", style="dim", soft_wrap=True)


def _rules(result: "Comparison") -> list[str]:
    """Return what decided whether pictures are right and clean."""
    who = " and ".join(result.right_by)
    lines = [f"right by {who}" if who else "right is unknown: nothing but the VLM trained against judges it"]
    if who and result.unjudged:
        lines[0] += f", except for {', '.join(result.unjudged)}"
    if result.automatic:
        lines.append(f"measures chosen automatically: {', '.join(result.automatic)}")
    return [*lines, f"clean by {', '.join(result.clean_by)}: the range of 95 % of the base's pictures"]


def _add(table: Table, title: str, rows: "Sequence[tuple[str, Figures, str]]") -> None:
    """Add rows of a label, figures and a unit under a title; without rows, add no title."""
    if rows:
        table.add_row(f"[dim]{title}[/dim]")
    for label, figures, unit in rows:
        table.add_row(f"  {label}", *map(_shown, figures.values()), unit)


def _labelled(name: str, judged: "Figures") -> str:
    """Return the name, with the share of pictures that were judged if it is below 1."""
    least = min(share for share in judged.values() if share is not None)
    return name if least == 1 else f"{name}, {least:.0%} judged"


def _models(result: "Comparison") -> list[str]:
    """Return a line for each model that measures judged by."""
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


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
