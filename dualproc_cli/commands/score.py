"""``dualproc score``: what the VLM says about pictures that exist already."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.spec import load_spec


def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures (PNG, JPEG or WebP).")],
    spec: Annotated[
        Path, typer.Option("--spec", metavar="SPEC", help="Control spec whose questions are asked.")
    ],
    overrides: Settings = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Print P(answer) of each question of a spec for pictures, the visual prompts laid over them.

    Example: dualproc score pictures/base/*.png --spec specs/horizon-position.yaml
    """
    loaded = load_spec(spec, overrides or ())
    from dualproc_cli.device import pick_device  # loads torch
    from dualproc_cli.scoring import score as score_pictures

    scores = score_pictures(images, loaded, pick_device(device))
    if as_json:
        rows = [{"image": str(path), "questions": found} for path, found in zip(images, scores, strict=True)]
        typer.echo(json.dumps({"spec": loaded.spec.name, "images": rows}, ensure_ascii=False))
        return
    names = [question.name for question in loaded.spec.questions]
    columns = ["image", *(f"P({name})" for name in names)]
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for path, found in zip(images, scores, strict=True):
        table.add_row(Text(str(path), overflow="fold"), *(f"{found[name]:.3f}" for name in names))
    Console(highlight=False).print(table)
