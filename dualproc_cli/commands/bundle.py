"""``dualproc bundle``: show what a bundle holds, verify, compare and export it."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from dualproc_cli.bundle import Bundle
from dualproc_cli.commands.diff import print_differences
from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device
from dualproc_cli.commands.tables import print_table
from dualproc_cli.errors import UserError
from dualproc_cli.metrics import first_and_last_probability
from dualproc_cli.models.source import require_models
from dualproc_cli.terminal import Text, echo

app = typer.Typer(no_args_is_help=True, help="Show adapter bundles, verify, compare and export them.")

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
        "stands on": ", ".join(f"{one.path} at {one.scale:g}" for one in spec.generator.adapters),
        "started from": f"the adapter sha256 {manifest.started_from[:12]}" if manifest.started_from else "",
        "run": f"{run.step} of {spec.learn.steps} steps in {run.seconds:g} s, ended by {run.reason}",
        "seed": str(manifest.seed),
        "set": ", ".join(f"{key}={value}" for key, value in manifest.overrides.items()),
        "spec": f"sha256 {manifest.spec_digest[:12]}",
        "files": f"{len(manifest.files)}, {UNCHANGED}",
        "bundle": f"sha256 {manifest.digest}",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, "dim"), Text(value))
    print_table(table)
    echo()
    questions = Table(
        "question", "answer", "P at start", "P at end", box=None, pad_edge=False, header_style="dim"
    )
    for question in spec.questions:
        first, last = first_and_last_probability(manifest.metrics, question.name)
        questions.add_row(Text(question.question), Text(question.answer), f"{first:.2f}", f"{last:.2f}")
    print_table(questions)


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


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="Folder of a bundle, or a .zip of it.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    picture: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PNG", help="The picture to write; by default A-B.png of the names."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", metavar="N", min=0, max=64, help="Pictures per prompt; 0 draws none.")
    ] = 4,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare two bundles: their specs value by value, and what both draw, side by side as one picture.

    The picture shows the prompts of both at seeds that neither was learned on.

    Example: dualproc bundle diff old.dualproc new.dualproc -o both.png
    """
    first, second = Bundle.open(before), Bundle.open(after)
    print_differences(first.spec, second.spec, as_json)
    if count == 0:
        return
    path = picture or Path(f"{_stem(before)}-{_stem(after)}.png")
    if path.exists():
        raise UserError(f"{path}: already exists (choose another name with -o, or remove it first)")
    sizes = [(one.spec.generator.width, one.spec.generator.height) for one in (first, second)]
    if sizes[0] != sizes[1]:
        raise UserError(f"{after}: draws other sizes than {before} (pass -n 0 to compare the specs alone)")
    require_models(first.spec.generator, second.spec.generator)
    with importing():
        from dualproc_cli.device import pick_device
        from dualproc_cli.pictures import save_png
        from dualproc_cli.side_by_side import side_by_side
    prompts = list(dict.fromkeys(prompt for one in (first, second) for prompt in one.spec.prompts.all))
    labels = [_stem(before), _stem(after)]
    save_png(side_by_side([first, second], labels, prompts, count, pick_device(device)), path)
    echo(f"Wrote {path}", err=as_json)


def _stem(path: Path) -> str:
    """Return the name of a bundle without its ending."""
    return path.resolve().name.removesuffix(".zip").removesuffix(".dualproc")


@app.command()
def export(
    bundle: BundlePath,
    layout: Annotated[
        Literal["diffusers", "kohya", "peft"],
        typer.Option(
            "--format",
            help="diffusers: one file for diffusers, and for Flux and SD3 in ComfyUI. kohya: one file for "
            "ComfyUI, Forge and InvokeAI (Stable Diffusion 1.5, SDXL, Flux). peft: a folder for peft.",
        ),
    ] = "diffusers",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="File or folder; by default <the control's name>-<format>."
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who made the control, for the metadata.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a bundle's adapter for other tools. It acts at the same strength in all of them.

    Example: dualproc bundle export horizon-position.dualproc --format kohya
    """
    opened = Bundle.open(bundle)
    from dualproc_cli.exporting import export_bundle  # loads torch

    echo(export_bundle(opened, layout, output, author, overwrite))


def _model(name: str, revision: str | None) -> str:
    return f"{name} at {revision[:12]}" if revision else name
