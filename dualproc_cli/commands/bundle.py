"""``dualproc bundle``: show what a bundle holds, and verify its files."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dualproc_cli.bundle import Bundle
from dualproc_cli.commands.options import AsJson
from dualproc_cli.metrics import first_and_last_probability
from dualproc_cli.terminal import Console, Text, echo

app = typer.Typer(no_args_is_help=True, help="Show adapter bundles and verify them.")

UNCHANGED = "all as they were written"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a .zip of it.")]


@app.command()
def show(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle does, what it was made for, and how its run went.

    Example: dualproc bundle show horizon-position.dualproc
    """
    opened = Bundle.open(bundle)
    if as_json:
        echo(opened.manifest.to_json(), nl=False)
        return
    manifest, spec = opened.manifest, opened.spec
    run = manifest.outcome
    facts = {
        "name": manifest.name,
        "description": spec.description,
        "generator": _model(spec.generator.model, manifest.revisions.generator),
        "vlm": _model(spec.vlm.model, manifest.revisions.vlm),
        "adapter": f"rank {spec.learn.adapter.rank}, scale {spec.learn.adapter.scale:g}",
        "run": f"{run.step} of {spec.learn.steps} steps in {run.seconds:g} s, ended by {run.reason}",
        "seed": str(manifest.seed),
        "set": ", ".join(f"{key}={value}" for key, value in manifest.overrides.items()),
        "spec": f"sha256 {manifest.spec_digest[:12]}",
        "files": f"{len(manifest.files)}, {UNCHANGED}",
        "bundle": f"sha256 {manifest.digest}",
    }
    console = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, "dim"), Text(value))
    console.print(table)
    console.print()
    questions = Table(
        "question", "answer", "P at start", "P at end", box=None, pad_edge=False, header_style="dim"
    )
    for question in spec.questions:
        first, last = first_and_last_probability(manifest.metrics, question.name)
        questions.add_row(Text(question.question), Text(question.answer), f"{first:.2f}", f"{last:.2f}")
    console.print(questions)


@app.command()
def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Verify that a bundle is as it was written, by the digests of its files and of bundle.json.

    This shows changes, not who made the bundle: compare the digest of the whole, which is printed, with one
    that its maker published, or check the maker's signature of bundle.json.

    Example: dualproc bundle verify horizon-position.zip
    """
    manifest = Bundle.open(bundle).manifest
    if as_json:
        found = {"bundle": str(bundle), "valid": True, "digest": manifest.digest, "files": manifest.files}
        echo(json.dumps(found, ensure_ascii=False))
    else:
        echo(f"{bundle}: {len(manifest.files)} files, {UNCHANGED}; sha256 {manifest.digest}")


def _model(name: str, revision: str | None) -> str:
    return f"{name} at {revision[:12]}" if revision else name
