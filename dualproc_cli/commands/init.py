"""``dualproc init``: a starter spec."""

from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.commands.schema import is_schema, write_schema
from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.terminal import echo

STARTER = Path(__file__).with_name("starter.yaml")
SCHEMA = "control.schema.json"  # the name that the starter's first line refers to


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The spec to write.")] = Path("control.yaml"),
) -> None:
    """Write a commented starter spec, and beside it the schema that editors use to complete and check it.

    Nothing that is there is replaced.

    Example: dualproc init horizon.yaml
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: already exists (choose another name, or remove it first)")
    schema = path.parent / SCHEMA
    if (schema.exists() or schema.is_symlink()) and not is_schema(schema):
        echo(f"kept {schema}, which is another; to replace it: dualproc schema -o {schema}", err=True)
    else:
        write_schema(schema)
    write_atomically(path, STARTER.read_text("utf-8").replace("control.yaml", str(path)))
    echo(f"Wrote {path}. Next: dualproc check {path}")
