"""Reading files that cannot block, and writing files and folders whole or not at all.

While it is written, ``NAME`` is called ``.NAME.XXXXXXXX.partial``. A process that is killed leaves that; the
next one that owns the output (see `locked`) removes it with `clear_leftovers`.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dualproc_cli.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
PARTIAL, OLD = ".partial", ".old"  # endings of what is being written, and of a folder that is being replaced
PROBE = 2**20  # bytes


def require_regular(path: Path) -> None:
    """Refuse what is not an ordinary file: opening a pipe may block for ever, and a device may never end.

    Raises:
        OSError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to a temporary file in the same folder, fsync it and rename it to ``path``.

    An interruption or a full disk leaves the previous file as it was. A link stays a link, and the file that
    it leads to is written. ``/dev/stdout`` and ``/dev/stderr`` are written to as they are.

    Raises:
        OSError: the disk is full, the file cannot be written, or ``path`` is a folder, a pipe or a device.
    """
    payload = data.encode() if isinstance(data, str) else data
    if (stream := STREAMS.get(str(path))) is not None:
        sys.stdout.flush()
        with os.fdopen(os.dup(stream), "wb") as file:
            file.write(payload)
        return
    path = Path(os.path.realpath(path))
    if path.exists():
        require_regular(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
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
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    except OSError as error:
        raise _unwritable(path, error) from error
    scratch.chmod(0o777 & ~_umask())
    try:
        yield scratch
        for file in scratch.rglob("*"):
            _sync(file)
        _replace_folder(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def require_writable(path: Path) -> None:
    """Make the folder of ``path`` if it is not there, and check that a file can be written as ``path``.

    A megabyte is written and removed, so that a full disk is found too.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``, which says that this process writes it.

    It is the operating system's: it is open again when the process ends, however it ends. The folder of
    ``path`` is made if it is not there.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"{path}: another run is writing it; wait until it ends, or choose another output with -o"
            ) from error
        except OSError as error:
            raise _unwritable(path, error) from error
        if not file.exists():  # its last owner removed it after it was opened here
            lock.release()
    try:
        yield
    finally:
        with suppress(OSError):  # it may be gone, and Windows removes it later
            file.unlink()
        lock.release()


def clear_leftovers(path: Path) -> list[str]:
    """Remove what killed processes left of writing ``path``; a folder that was being replaced is put back.

    Only the owner of ``path`` may call this, see `locked`.

    Returns:
        a line about each.
    """
    done = []
    ours = re.compile(rf"{re.escape(f'.{path.name}')}({OLD})?\.[a-z0-9_]{{8}}{PARTIAL}")
    for entry in sorted(path.parent.iterdir()):
        if not (match := ours.fullmatch(entry.name)):
            continue
        if match[1] and not path.exists() and (entry / path.name).exists():
            (entry / path.name).rename(path)
            done.append(f"{path}: put back, since a killed run had not yet replaced it")
        done += _removed(entry)
    return done


def clear_partial_files(folder: Path, ending: str) -> list[str]:
    """Remove what killed processes left in ``folder`` of writing files whose names end with ``ending``.

    Only the owner of all such files may call this.

    Returns:
        a line about each.
    """
    ours = re.compile(rf"\..+{re.escape(ending)}\.[a-z0-9_]{{8}}{PARTIAL}", re.DOTALL)
    entries = [entry for entry in sorted(folder.iterdir()) if ours.fullmatch(entry.name)]
    return [line for entry in entries for line in _removed(entry)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        OSError: it is not there, or not an ordinary file.
    """
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _removed(entry: Path) -> list[str]:
    """Remove a file or a folder that a killed process left; return a line about it if it held anything."""
    files = [file for file in entry.rglob("*") if file.is_file()] if entry.is_dir() else [entry]
    size = sum(file.lstat().st_size for file in files)
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
    return [f"{entry}: removed, left by a killed run ({size / 2**20:.1f} MiB)"] if files else []


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = f"cannot be written to ({error.strerror})"
    return UserError(f"{path.parent}: {reason}; choose another output with -o")


def _replace_folder(scratch: Path, path: Path) -> None:
    # A folder cannot be renamed over a full one: the old one is moved away, and back if the rename fails.
    if not path.exists():
        scratch.rename(path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{OLD}.", suffix=PARTIAL))
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
