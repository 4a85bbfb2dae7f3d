"""Options that several commands share."""

from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the spec, such as learn.steps=50; may be repeated.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or mps; by default the fastest available."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=2, metavar="N", help="Held-out seeds per prompt; the spec's by default."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with status 1 unless the verdict is: learned.")]
