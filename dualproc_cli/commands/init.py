"""``dualproc init``: write a spec to start from."""

import re
from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.commands.schema import is_schema, write_schema
from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.printable import printable
from dualproc_cli.spec import load_spec
from dualproc_cli.spec.faults import did_you_mean
from dualproc_cli.terminal import echo

STARTER = Path(__file__).with_name("starter.yaml")
SCHEMA = "control.schema.json"  # the name that the first line of a written spec refers to
PACKAGE = Path(__file__).parents[1]


def init(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]", help="The spec to write; by default control.yaml or the ready spec's name."
        ),
    ] = None,
    ready: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="Start from a ready spec instead of the commented one."),
    ] = None,
    list_ready: Annotated[bool, typer.Option("--list", help="List the ready specs.")] = False,
) -> None:
    """Write a commented starter spec, and beside it the schema that editors use to complete and check it.

    The control is named after the file. Nothing that is there is replaced.

    Example: dualproc init my-horizon.yaml --from horizon-position
    """
    specs = ready_specs()
    if list_ready:
        width = max(map(len, specs))
        for name, source in specs.items():
            echo(f"{name:{width}}  {load_spec(source).spec.description}")
        return
    if ready is not None and ready not in specs:
        raise UserError(
            f"--from {ready}: no such ready spec{did_you_mean(ready, list(specs))} (expected one of "
            f"{', '.join(specs)})"
        )
    path = path or Path(f"{ready or 'control'}.yaml")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: already exists (choose another name, or remove it first)")
    text = (specs[ready] if ready else STARTER).read_text("utf-8")
    schema = path.parent / SCHEMA
    if (schema.exists() or schema.is_symlink()) and not is_schema(schema):
        echo(f"kept {schema}, which is another; to replace it: dualproc schema -o {schema}", err=True)
    else:
        write_schema(schema)
    write_atomically(path, _adapted(text, path))
    echo(f"Wrote {path}. Next: dualproc check {path}")


def ready_specs() -> dict[str, Path]:
    """Return the specs that come with the package, by name; in a checkout they lie beside it."""
    folder = PACKAGE / "specs"
    if not folder.is_dir():
        folder = PACKAGE.parent / "specs"
    return {source.stem: source for source in sorted(folder.glob("*.yaml"))}


def _adapted(text: str, path: Path) -> str:
    """Return a spec's text with the control's name, the commands and the schema that suit its new file."""
    name = re.sub("[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:64].rstrip("-") or "my-control"
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)
    text = re.sub(r"(?m)^(# yaml-language-server: \$schema=).*$", rf"\g<1>{SCHEMA}", text, count=1)
    file = printable(str(path))  # in a comment, which a line feed would end
    return re.sub(r"(?m)^(#   dualproc \w+ )\S+\.yaml", lambda match: f"{match[1]}{file}", text)
