"""``dualproc score``: what the VLM and the measures say about pictures that exist already."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.commands.tables import print_table
from dualproc_cli.models.source import require_models
from dualproc_cli.spec import load_spec
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Text, echo

if TYPE_CHECKING:
    from dualproc_cli.scoring import Measured


def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures (PNG, JPEG or WebP).")],
    spec: Annotated[
        Path, typer.Option("--spec", metavar="SPEC", help="Control spec whose questions are asked.")
    ],
    overrides: Settings = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Print P(answer) of each question of a spec for pictures, and what the spec's measures find in them.

    Example: dualproc score pictures/base/*.png --spec specs/horizon-position.yaml
    """
    loaded = load_spec(spec, overrides or ())
    require_models(loaded.spec.vlm)
    with importing(loaded.spec.vlm, measures=loaded.spec.evaluate.measures):
        from dualproc_cli.device import pick_device
        from dualproc_cli.scoring import score_pictures

    scores = score_pictures(images, loaded, pick_device(device))
    stage("")
    if as_json:
        rows = [
            {
                "image": str(path),
                "questions": found.probabilities,
                "measures": {name: asdict(measured) for name, measured in found.measures.items()},
            }
            for path, found in zip(images, scores, strict=True)
        ]
        echo(json.dumps({"spec": loaded.spec.name, "images": rows}, ensure_ascii=False))
        return
    questions = [f"P({name})" for name in scores[0].probabilities]
    measures = [
        f"{name} ({measured.unit})" if measured.unit else name
        for name, measured in scores[0].measures.items()
    ]
    table = Table("image", *questions, *measures, box=None, pad_edge=False, header_style="dim")
    for path, found in zip(images, scores, strict=True):
        answers = (f"{probability:.3f}" for probability in found.probabilities.values())
        table.add_row(Text(str(path), overflow="fold"), *answers, *map(_shown, found.measures.values()))
    print_table(table)


def _shown(measured: "Measured") -> str:
    if measured.value is None and measured.success is None:
        return "unjudged"
    value = "" if measured.value is None else f"{measured.value:.3f}"
    verdict = {True: "yes", False: "no", None: ""}[measured.success]
    return f"{value} {verdict}".strip()
