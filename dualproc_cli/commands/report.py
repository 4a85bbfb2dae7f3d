"""``dualproc report``: everything that is known of a control, and whether to trust it, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.commands.evaluate import evaluate_all
from dualproc_cli.commands.options import Device, Seeds, Strict
from dualproc_cli.errors import UserError
from dualproc_cli.files import require_writable
from dualproc_cli.terminal import echo


def report(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `dualproc learn` wrote, or a .zip of it.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="HTML",
            help="The file to write. By default report.html in the bundle, with its model card; that gives "
            "the bundle another digest, which is printed.",
        ),
    ] = None,
    seeds: Seeds = None,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Evaluate a control in full, and write a report: one HTML file, which runs no script and loads nothing.

    It shows the verdict, pictures before and after, what could have fooled the VLM and what came of it, the
    curves of the run, other strengths of the adapter, all figures and the spec.

    Example: dualproc report horizon-position.dualproc -o horizon-position.html
    """
    from dualproc_cli.bundle import Bundle, VerdictRecord, add_report

    opened = Bundle.open(bundle)
    if output is None and opened.folder != bundle:
        raise UserError(f"{bundle}: a report cannot be added to a zip file; name a file for it with -o")
    if output and output.is_dir():
        raise UserError(f"{output}: is a folder (expected the name of an HTML file, such as report.html)")
    require_writable(output or bundle)
    (found,) = evaluate_all([opened], seeds, device, full=True)
    from dualproc_cli.report import report_page, write_report

    if output:
        write_report([found], output)
        echo(f"Wrote {output}")
    else:
        verdict = VerdictRecord(**found.verdict.as_json())
        manifest = add_report(opened, report_page([found]), verdict, found.pictures)
        echo(f"Wrote {bundle / 'report.html'}; the bundle's sha256 is now {manifest.digest}")
    echo(f"verdict: {found.verdict.name}: {found.verdict.reason}")
    if strict and found.verdict.name != "learned":
        raise typer.Exit(1)
