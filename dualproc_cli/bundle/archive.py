"""Unpacking zipped bundles, which may come from strangers."""

import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from dualproc_cli.bundle.layout import MANIFEST
from dualproc_cli.errors import UserError
from dualproc_cli.files import DISK_FULL, locked

# What Python's zipfile raises for damaged files; OSError: for names that no file can have.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can ask for gigabytes of memory
PREFIX = "dualproc-bundle-"  # of temporary folders
MAX_FILES = 1000
MAX_BYTES = 8 * 2**30  # unpacked; an adapter of rank 128 for the largest generators is about 2 GiB


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack a zipped bundle into a temporary folder, which is removed after the block.

    What processes left that were killed meanwhile is removed too.

    Yields:
        the temporary folder, in which `bundle_root` finds the bundle.

    Raises:
        UserError: the file is not a zip file or is damaged, or it would write outside the folder, link
            elsewhere or fill the disk.
    """
    home = Path(tempfile.gettempdir())
    for folder in home.glob(f"{PREFIX}*"):
        with suppress(UserError, OSError), locked(folder):  # it is in use, or another user's
            shutil.rmtree(folder)
    scratch = home / f"{PREFIX}{secrets.token_hex(8)}"
    with locked(scratch):
        scratch.mkdir(0o700)
        try:
            _unpack(archive, scratch)
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            _check(archive, entries)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # Reading stops at the declared size, which was checked above.
                with file.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except DAMAGED as error:
        if getattr(error, "errno", None) in DISK_FULL:
            raise
        raise UserError(f"{archive}: not a readable zip file ({error}); copy it again") from error


def bundle_root(folder: Path) -> Path:
    """Return the bundle in ``folder``: ``folder`` itself or, if a folder was zipped, its only entry."""
    inside = list(folder.iterdir())
    if not (folder / MANIFEST).exists() and len(inside) == 1 and (inside[0] / MANIFEST).is_file():
        return inside[0]
    return folder


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if not is_inside(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(f"{archive}: {entry.filename!r} leads out of the bundle; do not use it")
        if entry.compress_type not in COMPRESSIONS:
            raise UserError(
                f"{archive}: {entry.filename!r} is compressed by method {entry.compress_type} "
                "(expected deflate or none, as usual); zip the folder again"
            )
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise UserError(
            f"{archive}: too large (expected at most {MAX_FILES} files and {MAX_BYTES // 2**30} GiB)"
        )


def is_inside(path: str) -> bool:
    """Return whether a relative path with forward slashes stays inside its folder, on every system."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith("/")
        and ".." not in parts
        and not any(character in path for character in "\\:\0")
        and PurePosixPath(path).as_posix() == path
    )
