"""Whether the picture of a visual prompt may be used: inside the spec's folder, readable, of sane size."""

import warnings
from pathlib import Path

FORMATS = ("PNG", "JPEG", "WEBP")  # others are refused: some of Pillow's readers run programs
SMALLEST, LARGEST = 8, 8192  # pixels a side


def picture_fault(path: str, folder: Path) -> tuple[str, str] | None:
    """What is wrong with the picture at ``path`` and what was expected, or None.

    Args:
        path: as the spec gives it, relative to ``folder``.
        folder: where the spec lies.
    """
    inside = "a file inside the spec's folder, by a relative path"
    if "\0" in path:
        return "holds a null character", inside
    if Path(path).is_absolute():
        return f"is an absolute path: {path}", inside
    try:
        home = folder.resolve()
        file = (home / path).resolve()  # follows links, so that none leads out
        if not file.is_relative_to(home):
            return f"leaves the spec's folder: {path}", inside
        if not file.is_file():
            return f"no such file: {file}", inside
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        return f"cannot be opened: {path} ({error})", inside
    return _content_fault(file)


def _content_fault(file: Path) -> tuple[str, str] | None:
    from PIL import Image  # only specs with pictures wait for Pillow

    sane = f"{SMALLEST} to {LARGEST} pixels a side"
    readable = "a readable PNG, JPEG or WebP file"
    try:
        with warnings.catch_warnings(), Image.open(file, formats=FORMATS) as image:
            if not all(SMALLEST <= side <= LARGEST for side in image.size):
                return f"is {image.width}x{image.height} pixels: {file}", sane
            image.load()
    except Image.DecompressionBombError:
        return f"has far too many pixels: {file}", sane
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        return f"cannot be read: {file} ({error or type(error).__name__})", readable
    return None
