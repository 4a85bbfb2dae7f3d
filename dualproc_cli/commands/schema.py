"""``dualproc schema``: the JSON Schema of control specs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.errors import UserError
from dualproc_cli.files import require_regular, write_atomically
from dualproc_cli.spec import json_schema
from dualproc_cli.terminal import echo


def schema(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write instead of printing."),
    ] = None,
) -> None:
    """Print the JSON Schema of control specs, for editors and validators.

    Example: dualproc schema -o control.schema.json
    """
    if output is None:
        echo(_text(), nl=False)
    else:
        write_schema(output)


def write_schema(path: Path) -> None:
    """Write the schema to a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomically(path, _text())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror} (choose a folder that can be written to)"
        ) from error


def is_schema(path: Path) -> bool:
    """Return whether the file is the schema as `write_schema` writes it."""
    try:
        require_regular(path)
        return path.read_bytes() == _text().encode()
    except OSError:
        return False


def _text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"
