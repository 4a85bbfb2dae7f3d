"""``dualproc check``: validate specs, and show what they resolve to."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.commands.tables import print_table
from dualproc_cli.measures import check_measures
from dualproc_cli.models.source import require_models
from dualproc_cli.printable import printable
from dualproc_cli.spec import ControlSpec, Fault, LoadedSpec, SpecError, load_spec, spec_digest
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Text, echo

if TYPE_CHECKING:  # this loads torch
    from dualproc_cli.compiler import PlannedView

ORIGIN_STYLES = {"spec": "bold", "--set": "bold yellow", "preset": "cyan", "default": "dim"}


def check(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC", help="Control specs (YAML).")],
    settings: Settings = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Also load the VLM's processor and show the questions' lengths."),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Predict the memory that learning takes, without loading weights."),
    ] = False,
    values: Annotated[
        bool, typer.Option("--values", help="Show every value and its origin: spec, preset, default, --set.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Validate specs: every mistake with its line and column, or a line that says what a spec does.

    Example: dualproc check specs/horizon-position.yaml --values
    """
    loaded: dict[Path, LoadedSpec] = {}
    faults: list[Fault] = []
    more = 0  # faults that are not listed
    for path in specs:
        try:
            spec = load_spec(path, settings or ())
            check_measures(spec)
            loaded[path] = spec
        except SpecError as error:
            faults += error.faults
            more += error.more
    reports = [_report(path, spec) for path, spec in loaded.items()]
    if not faults:  # these take seconds, so they wait until all specs are valid
        for report, spec in zip(reports, loaded.values(), strict=True):
            report |= _plan(spec) if plan else {}
            report |= _memory(spec, device) if memory else {}
    if as_json:
        echo(
            json.dumps(
                {"specs": reports, "errors": [_error(fault) for fault in faults], "more_errors": more},
                ensure_ascii=False,
                default=asdict,  # of dataclasses
            )
        )
    else:
        for report, spec in zip(reports, loaded.values(), strict=True):
            echo(printable(_summary(report, spec.spec)))
            _show(report, values)
    if faults:
        raise SpecError(faults, more)


def _report(path: Path, loaded: LoadedSpec) -> dict[str, Any]:
    return {
        "file": str(path),
        "digest": spec_digest(loaded.spec),
        "spec": loaded.spec.model_dump(mode="json"),
        "origins": loaded.origins,
        "presets": {part: asdict(preset) for part, preset in loaded.presets.items()},
    }


def _plan(loaded: LoadedSpec) -> dict[str, Any]:
    require_models(loaded.spec.vlm)
    with importing(loaded.spec.vlm):
        from dualproc_cli.compiler import plan

    return {"plan": plan(loaded)}


def _memory(loaded: LoadedSpec, name: str | None) -> dict[str, Any]:
    with importing(loaded.spec.generator, loaded.spec.vlm):
        from dualproc_cli.device import pick_device
        from dualproc_cli.memory import estimate_learning, plan_learning

    device = pick_device(name)
    stage("estimating the memory of a step")
    plan = plan_learning(loaded, device)
    estimate = plan.estimate or estimate_learning(loaded, device, plan.strategies)
    found = {
        "device": str(device),
        "parts": estimate.parts,
        "total": estimate.total,
        "available": plan.budget,
        "fits": estimate.total <= plan.budget,
        "strategies": [
            {"name": one.name, "does": one.does, "cost": one.cost, "error": one.error or None}
            for one in plan.strategies
        ],
    }
    return {"memory": found}


def _error(fault: Fault) -> dict[str, Any]:
    place = {
        "source": fault.place.source,
        "line": fault.place.line or None,
        "column": fault.place.column or None,
    }
    return place | {"key": fault.key, "problem": fault.problem, "expected": fault.expected}


def _summary(report: dict[str, Any], spec: ControlSpec) -> str:
    """Return the short answer of a valid spec."""
    prompts = f"{len(spec.prompts.train)} prompts and {len(spec.prompts.held_out)} held out"
    if spec.variety:
        prompts += f" ({len(spec.variety)} more for variety)"
    return (
        f"{report['file']}: valid: {spec.name}, {len(spec.questions)} question(s) to {spec.vlm.model} about "
        f"{spec.generator.model} at {spec.generator.width} x {spec.generator.height}, {prompts}, "
        f"{spec.learn.steps} steps (sha256 {report['digest'][:12]})"
    )


def _show(report: dict[str, Any], values: bool) -> None:
    for part, preset in report["presets"].items():
        echo(f"{part}: preset {preset['name']} ({preset['why']})")
    if values:
        table = Table("key", "value", "origin", box=None, pad_edge=False, header_style="dim")
        for key, origin in report["origins"].items():
            style = ORIGIN_STYLES[origin]
            table.add_row(Text(key), Text(_value(report["spec"], key), style), Text(origin, style))
        print_table(table)
    if "plan" in report:
        print_table(_plan_table(report["plan"]))
    if "memory" in report:
        print_table(_memory_table(report["memory"]))


def _value(spec: Any, key: str) -> str:
    for part in key.split("."):
        spec = spec[int(part)] if isinstance(spec, list) else spec[part]
    return json.dumps(spec, ensure_ascii=False)


def _memory_table(memory: dict[str, Any]) -> Table:
    from dualproc_cli.memory import readable  # has loaded torch

    table = Table("memory", "size", box=None, pad_edge=False, header_style="dim", title="memory (predicted)")
    for part, size in {**memory["parts"], "total": memory["total"]}.items():
        table.add_row(part, readable(size))
    verdict = "fits" if memory["fits"] else "does not fit"
    table.add_row(f"available on {memory['device']} ({verdict})", readable(memory["available"]))
    for one in memory["strategies"]:
        exactness = f"lossy: {one['error']}" if one["error"] else "exact"
        table.add_row(one["name"], f"{one['does']}; {one['cost']}; {exactness}")
    return table


def _plan_table(views: "list[PlannedView]") -> Table:
    columns = ("view", "size", "mode", "prefix", "question", "answer", "suffix", "weight")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim", title="plan (lengths in tokens)")
    for view in views:
        height, width = view.size
        for question in view.questions:
            shown = (view.view, f"{width}x{height}", view.mode, view.prefix_tokens)
            asked = (question.question, question.answer, question.suffix_tokens, question.weight)
            table.add_row(*(Text(str(cell)) for cell in shown + asked))
    return table
