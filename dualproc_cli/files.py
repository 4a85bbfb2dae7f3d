"""Writing files and folders so that an incomplete one never has its final name."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualproc_cli.errors import UserError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to a temporary file in the same folder, fsync it and rename it to ``path``.

    An interruption or a full disk leaves the previous file as it was.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    payload = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_atomically(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` when the block succeeds.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or its parent cannot be written to.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists (pass --overwrite to replace it, or choose another output)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written to ({error.strerror}); choose another output"
        ) from error
    scratch.chmod(0o777 & ~_umask())
    try:
        yield scratch
        for file in scratch.rglob("*"):
            _sync(file)
        _replace_folder(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def require_writable(folder: Path) -> None:
    """Make ``folder`` if it is not there, and check that a file can be written into it.

    Raises:
        UserError: the folder cannot be made or written to.
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


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace_folder(scratch: Path, path: Path) -> None:
    # A folder cannot be renamed over a full one: the old one is moved away, and back if the rename fails.
    if not path.exists():
        scratch.rename(path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.rename(aside / path.name)
    try:
        scratch.rename(path)
    except BaseException:
        (aside / path.name).rename(path)  # if this fails too, the old folder stays in ``aside``
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
