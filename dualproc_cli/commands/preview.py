"""``dualproc preview``: what a run would learn from, before it is paid for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import AsJson, Device, Settings
from dualproc_cli.commands.tables import print_table
from dualproc_cli.errors import UserError
from dualproc_cli.files import clear_leftovers, folder_atomically, locked, require_writable
from dualproc_cli.models.source import require_models
from dualproc_cli.spec import load_spec
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Console, Text, echo

if TYPE_CHECKING:
    from dualproc_cli.preview import Preview

NUMBERS, PICTURE = "preview.json", "preview.png"
LEGEND = (
    "blank, noise: P(answer) of pictures that show nothing",
    "overlay: nats by which the answer's log-odds change when the visual prompt is altered or taken away",
    "pixels: nats by which the loss falls, at most, if every pixel changes by 1 % of its range",
)


def preview(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Control spec (YAML).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder of what is found; by default <the spec's name>.preview. An earlier preview there is "
            "replaced.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            max=1000,
            metavar="N",
            help="Pictures per prompt; by default as many as make about 16.",
        ),
    ] = None,
    overrides: Settings = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Ask a spec's questions about the base generator's pictures, and warn of what would be learned wrongly.

    Nothing is learned. Answers that are true already or never, questions that are answered without looking,
    wordings that disagree and overlays that hide too much are told with their numbers.

    Example: dualproc preview specs/horizon-position.yaml
    """
    loaded = load_spec(spec, overrides or ())
    folder = output or Path(f"{loaded.spec.name}.preview")
    require_models(loaded.spec.generator, loaded.spec.vlm)
    with _owned(folder):
        with importing(loaded.spec.generator, loaded.spec.vlm):
            from dualproc_cli.device import pick_device
            from dualproc_cli.pictures import save_png
            from dualproc_cli.preview import preview as preview_spec

        found = preview_spec(loaded, pick_device(device), seeds)
        numbers = json.dumps(found.as_json(), ensure_ascii=False)
        with folder_atomically(folder, overwrite=True) as scratch:
            (scratch / NUMBERS).write_text(numbers, "utf-8")
            save_png(found.sheet, scratch / PICTURE)
        stage("")
        if as_json:
            echo(numbers)
            return
        _print(found)
        echo(f"Wrote {folder}. See {folder / PICTURE}")


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Own the folder of a preview inside the block; it must be new, empty, or an earlier preview.

    Raises:
        UserError: it holds something else, cannot be written to, or another process writes it.
    """
    if not folder.name:
        raise UserError(f"{folder}: expected the name of a folder for the preview")
    with locked(folder):
        clear_leftovers(folder)
        full = folder.is_symlink() or (
            folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
        )
        if full and not (folder / NUMBERS).is_file():
            raise UserError(f"{folder}: exists and is not a preview; choose another output with -o")
        require_writable(folder)
        yield


def _print(found: "Preview") -> None:
    from dualproc_cli.preview.asking import NOTHING  # has loaded torch
    from dualproc_cli.preview.findings import overlay_change

    table = Table(
        Column("question", no_wrap=True),
        "wording",
        *(
            Column(name, justify="right")
            for name in ("P(answer)", "least", "largest", *NOTHING, "overlay", "pixels")
        ),
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for one in found.asked:
        probability = one.pictures.probability
        for index, text in enumerate(one.question.trained_wordings):
            own = probability[index]
            numbers = [own.mean(), own.min(), own.max(), *one.nothing.probability[index]]
            first = index == 0
            nats = [overlay_change(one), one.gradient] if first else []
            table.add_row(
                Text(one.question.name if first else ""),
                Text(text if index < one.own else f"opposite: {text}", overflow="fold"),
                *(f"{number:.3f}" for number in map(float, numbers)),
                *("" if value is None else f"{value:.2f}" for value in nats),
            )
    print_table(table)
    console = Console(highlight=False)
    for line in LEGEND:
        console.print(line, style="dim", soft_wrap=True, markup=False)
    count = f"{len(found.prompts)} prompt(s) at {len(found.seeds)} seed(s)"
    console.print(f"base pictures of {count}", style="dim", soft_wrap=True)
    for finding in found.findings:
        echo(finding)
    if not found.findings:
        echo("nothing to warn of")
