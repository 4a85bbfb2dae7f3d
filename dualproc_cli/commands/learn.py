"""``dualproc learn``: from a spec to an adapter bundle."""

from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.bundle import Bundle
from dualproc_cli.bundle.layout import GRID
from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import Device, Settings, Strict
from dualproc_cli.models.source import require_models
from dualproc_cli.spec import load_spec
from dualproc_cli.terminal import Console, echo


def learn(
    ctx: typer.Context,
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Control spec (YAML).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="BUNDLE",
            help="Folder of the bundle; by default <the spec's name>.dualproc.",
        ),
    ] = None,
    overrides: Settings = None,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing bundle, or start an interrupted run anew."),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="BUNDLE", help="Go on from this control: the adapter starts as its."),
    ] = None,
    strict: Strict = False,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="If the run ends early, write a bundle of its best state.")
    ] = False,
) -> None:
    """Learn a control and write its adapter bundle, with pictures before and after.

    Ctrl-C finishes the step, saves a checkpoint beside the bundle and stops; --resume goes on bit for bit.

    Example: dualproc learn specs/horizon-position.yaml --set learn.steps=200
    """
    loaded = load_spec(spec, overrides or ())
    opened = Bundle.open(start) if start else None
    require_models(loaded.spec.generator, loaded.spec.vlm)
    with importing(loaded.spec.generator, loaded.spec.vlm, measures=loaded.spec.evaluate.measures):
        from dualproc_cli.device import pick_device
        from dualproc_cli.learning import learn as learn_control

    target = output or Path(f"{loaded.spec.name}.dualproc")
    verdict = learn_control(
        loaded,
        target,
        device=pick_device(device),
        resume=resume,
        overwrite=overwrite,
        keep_best=keep_best,
        start=opened,
        console=Console(stderr=True, quiet=ctx.find_root().params["quiet"]),
    )
    if verdict:
        echo(f"verdict: {verdict.name}: {verdict.reason}")
    echo(f"Wrote {target}. See {target / GRID}. Next: dualproc sample --control {target}")
    if strict and (verdict is None or verdict.name != "learned"):
        raise typer.Exit(1)
