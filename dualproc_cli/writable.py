"""Whether a folder can be written to, asked before hours of work go into what is to be written there."""

import os
import tempfile
from pathlib import Path

from dualproc_cli.errors import UserError


def require_writable(folder: Path) -> None:
    """Make ``folder`` if it is not there, and check that a file can be written into it.

    Raises:
        UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another output with -o"
        ) from error
    os.close(handle)
    os.unlink(name)
