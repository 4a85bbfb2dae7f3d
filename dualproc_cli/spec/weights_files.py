"""Files of weights that a spec names: only safetensors are read, since a pickle can run code."""

import struct
from pathlib import Path, PurePosixPath

from dualproc_cli.spec.pictures import INSIDE

# The adapter's file in folders that diffusers writes, and in bundles.
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
ADAPTER = f"a LoRA's .safetensors file, or a folder with {ADAPTER_FILE}"


def weights_fault(file: Path) -> str | None:
    """Return why ``file`` is not read as weights, or None: it must start as a safetensors file does.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        start = stream.read(9)
    if len(start) == 9 and start[8:] == b"{" and 8 + struct.unpack("<Q", start[:8])[0] <= file.stat().st_size:
        return None
    if file.suffix in PICKLES or start[:2] in (b"PK", b"\x80\x02"):
        return "is a pickle, which can run code; convert it to safetensors"
    return "is not a safetensors file"


def adapter_file(path: str) -> str:
    """Return the relative path, with forward slashes, of the file that an adapter's ``path`` means."""
    normal = PurePosixPath(path.replace("\\", "/"))
    return (normal if normal.suffix else normal / ADAPTER_FILE).as_posix()


def adapter_fault(path: str, folder: Path) -> tuple[str, str] | None:
    """Return what is wrong with the ``path`` of an adapter and what was expected, or None.

    Args:
        path: as the spec gives it, relative to ``folder``.
        folder: where the spec lies.
    """
    if "\0" in path:
        return "contains a null character", INSIDE
    inside = Path(path)
    if inside.is_absolute() or ".." in inside.parts or "\\" in path:
        return f"leaves the spec's folder: {path}", INSIDE
    relative = adapter_file(path)
    if relative == ADAPTER_FILE:
        return "has the name of the adapter that is learned", "another name, or a folder of its own"
    try:
        file = (folder / relative).resolve()  # follows links, which might lead out of the folder
        if not file.is_relative_to(folder.resolve()):
            return f"leaves the spec's folder: {path}", INSIDE
        if not file.is_file():
            return f"no such file: {file}", ADAPTER
        problem = weights_fault(file)
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        return f"cannot be opened: {path} ({error})", ADAPTER
    return (f"{problem}: {file}", ADAPTER) if problem else None
