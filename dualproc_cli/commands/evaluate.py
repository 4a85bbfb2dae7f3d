"""``dualproc evaluate``: before and after, on seeds and prompts that were never learned on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device, Seeds, Strict
from dualproc_cli.commands.tables import print_table
from dualproc_cli.files import require_writable
from dualproc_cli.models.source import require_models
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Console, Text, echo

if TYPE_CHECKING:
    from dualproc_cli.bundle import Bundle
    from dualproc_cli.evaluation import Comparison
    from dualproc_cli.evaluation.tables import Rows
    from dualproc_cli.report import Evaluated


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...", help="What `dualproc learn` wrote, or a .zip of it; several are compared."
        ),
    ],
    seeds: Seeds = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also try JPEG, half size and other strengths of the adapter, which takes about half as "
            "long again.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="HTML", help="Write a report of all bundles, too; implies --full."),
    ] = None,
    device: Device = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Compare the base generator with the learned control on held-out seeds and prompts.

    A picture is right if it reaches every goal, and clean if it has no more artefacts than the base
    generator's own pictures. The verdict follows from their shares, by a rule that is printed with it.
    Several bundles are set side by side: each draws the prompts of all at the same seeds.

    Example: dualproc evaluate horizon-position.dualproc --seeds 64
    """
    from dualproc_cli.bundle import Bundle

    opened = [Bundle.open(path) for path in bundles]
    if report:
        require_writable(report)
    found = evaluate_all(opened, seeds, device, full or report is not None)
    from dualproc_cli.evaluation.tables import compared

    if as_json:
        records = [{"verdict": one.verdict.as_json(), **one.comparison.as_json()} for one in found]
        named = [{"bundle": str(path), **record} for path, record in zip(bundles, records, strict=True)]
        echo(json.dumps({"bundles": named} if len(found) > 1 else records[0], ensure_ascii=False))
    elif len(found) == 1:
        _print(found[0].comparison)
    else:
        _print_rows(compared((one.label, one.comparison, one.verdict) for one in found))
    if not as_json:
        for one in found:
            label = f"{one.label}: " if len(found) > 1 else ""
            Console(highlight=False).print(
                Text.assemble(label, (one.verdict.name, "bold"), f": {one.verdict.reason}"), soft_wrap=True
            )
    if report:
        from dualproc_cli.report import write_report

        write_report(found, report)
        echo(f"Wrote {report}", err=as_json)
    if strict and any(one.verdict.name != "learned" for one in found):
        raise typer.Exit(1)


def evaluate_all(
    bundles: Sequence["Bundle"], seeds: int | None, device: str | None, full: bool
) -> "list[Evaluated]":
    """Evaluate bundles, one after another, on the prompts of all of them at the same seeds.

    Args:
        bundles: opened; at least one.
        seeds: held-out seeds per prompt; None takes what the first bundle's spec says.
        device: where the models run, as the user named it.
        full: whether to try more, and to keep pictures for a report.
    """
    models = [
        model
        for bundle in bundles
        for model in (bundle.spec.generator, bundle.spec.vlm, bundle.spec.evaluate.vlm)
    ]
    measures = [measure for bundle in bundles for measure in bundle.spec.evaluate.measures]
    require_models(*models)
    with importing(*models, measures=measures):
        from dualproc_cli.device import pick_device
        from dualproc_cli.evaluation import Album, SharedPictures, evaluate_bundle, verdict_of
        from dualproc_cli.report import Evaluated
    place, count = pick_device(device), seeds or max(2, bundles[0].spec.evaluate.seeds)
    prompts = dict.fromkeys(prompt for bundle in bundles for prompt in bundle.spec.prompts.all)
    shared = SharedPictures(tuple(prompts)) if len(bundles) > 1 else None
    found = []
    for bundle in bundles:
        album, prefix = Album(), f"{bundle.source.name}: " if shared else ""

        def progress(done: int, total: int, prefix: str = prefix) -> None:
            stage(f"{prefix}drawing pictures: {done} of {total}")

        result = evaluate_bundle(bundle, place, count, progress, full=full, album=album, shared=shared)
        found.append(Evaluated.of(bundle, result, verdict_of(result), album))
    stage("")
    return found


def _print(result: "Comparison") -> None:
    from dualproc_cli.evaluation.tables import models, rules, tables_of

    console = Console(highlight=False)
    pictures, *others = tables_of(result)
    _print_rows(pictures)
    for line in rules(result):
        console.print(f"  {line}", style="dim", soft_wrap=True, markup=False)
    for table in others:
        _print_rows(table)
    for line in models(result):
        console.print(line, style="dim", soft_wrap=True, markup=False)
    console.print(f"{result.seeds} held-out seeds per prompt", style="dim", soft_wrap=True)


def _print_rows(rows: "Rows") -> None:
    table = Table(Column(rows.title, no_wrap=True), *rows.columns, box=None, header_style="dim")
    for label, cells in rows.rows:
        table.add_row(Text(f"  {label}") if cells else Text(label, "dim"), *map(Text, cells))
    print_table(table)
