"""Putting a report together: everything that a template shows, escaped."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dualproc_cli import __version__
from dualproc_cli.evaluation.tables import compared, models, rules, tables_of
from dualproc_cli.files import write_atomically
from dualproc_cli.known_models.pairs import licence_of
from dualproc_cli.printable import printable
from dualproc_cli.report.evaluated import Evaluated
from dualproc_cli.report.findings import findings
from dualproc_cli.report.pictures import overlay, strips

TEMPLATE = "report.html.jinja"
# What a picture's address may be: nothing that could end the style it stands in.
DATA_URI = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]+=*")


def write_report(found: Sequence[Evaluated], path: Path) -> None:
    """Write the report of one or several controls as an HTML file, atomically.

    Raises:
        OSError: the disk is full, or the file cannot be written.
        UserError: a picture of a visual prompt cannot be read.
    """
    write_atomically(path, report_page(found))


def report_page(found: Sequence[Evaluated]) -> str:
    """Return the report of one or several controls as an HTML page that stands alone.

    All text that is not the project's own is escaped: for HTML, and what is not printable by `printable`.
    Equal results give an equal page.

    Args:
        found: at least one; several are shown side by side.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=" and ".join(one.label for one in found),
        version=__version__,
        strips=strips(found),
        layers=[_data_uri(overlay(one.spec, one.folder)) for one in found],
        layer_of={one.label: index for index, one in enumerate(found)},
        compared=compared((one.label, one.comparison, one.verdict) for one in found)
        if len(found) > 1
        else None,
        controls=[_control(one, f"control{index}") for index, one in enumerate(found)],
    )


def _escaped(value: Any) -> Any:
    """Return text without what is not printable; Jinja escapes it for HTML afterwards, but no `Markup`."""
    if isinstance(value, Markup):
        return value
    return printable(str(value), keep="\n\t")


def _data_uri(address: str | None) -> Markup | None:
    """Return the address of a picture as it may stand in a style."""
    return Markup(address) if address and DATA_URI.fullmatch(address) else None


def _control(one: Evaluated, key: str) -> dict[str, Any]:
    """Return what the template shows of one control; ids in its plots begin with ``key``."""
    found = one.comparison
    return {
        "name": one.label,
        "spec": one.spec,
        "text": one.text,
        "overrides": one.overrides,
        "verdict": one.verdict,
        "found": found,
        "findings": findings(found, one.verdict),
        "tables": list(tables_of(found)),
        "rules": rules(found),
        "plots": list(_plots(one, key)),
        "validated": bool(one.validations),
        "facts": dict(_facts(one)),
        "licences": [*_licences(one), *models(found)],
    }


def _plots(one: Evaluated, key: str) -> Iterator[tuple[str, Markup]]:
    """Yield the plots of a control, each with its caption."""
    # imported here: matplotlib takes a second, and most evaluations write no report
    from dualproc_cli.report.plots import answers_plot, losses_plot, strengths_plot

    yield "P(answer) while learning", answers_plot(one.metrics, one.validations, f"{key}-answers")
    yield "Loss, and the cost of keeping", losses_plot(one.metrics, f"{key}-losses")
    if one.comparison.strengths:
        yield "Strengths of the adapter", strengths_plot(one.comparison.strengths, f"{key}-strengths")


def _facts(one: Evaluated) -> Iterator[tuple[str, str]]:
    """Yield what the run was, and with what."""
    spec, run = one.spec, one.outcome
    yield "generator", _at(spec.generator.model, one.revisions.generator)
    yield "VLM", _at(spec.vlm.model, one.revisions.vlm)
    if spec.evaluate.vlm:
        yield "second VLM", _at(spec.evaluate.vlm.model, one.revisions.evaluate_vlm)
    yield "moved by the answers", ", ".join(spec.where)
    yield "adapter", f"{spec.learn.adapter.type}, rank {spec.learn.adapter.rank}"
    yield "run", f"{run.step} steps in {run.seconds:g} s, ended by {run.reason}; seed {spec.learn.seed}"
    yield "pictures judged", one.pictures
    yield "versions", ", ".join(f"{name} {version}" for name, version in one.versions.items())
    if one.digest:
        yield "bundle, as it was evaluated", f"sha256 {one.digest}"


def _at(model: str, revision: str | None) -> str:
    return f"{model} at {revision[:12]}" if revision else model


def _licences(one: Evaluated) -> Iterator[str]:
    """Yield what is known of the licences of a run's models."""
    for kind, model in (("generator", one.spec.generator.model), ("VLM", one.spec.vlm.model)):
        yield f"{kind} {model}: {licence_of(model) or 'see its model card'}"
