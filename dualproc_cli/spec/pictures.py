"""Picture files: reading them, and whether the picture of a visual prompt may be used.

Every picture that a user names is read by `read_picture`. Pillow is imported only when a picture is read.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from dualproc_cli.files import require_regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")  # others are refused: some of Pillow's readers run programs
SMALLEST, LARGEST = 8, 8192  # pixels a side
READABLE = "a readable PNG, JPEG or WebP file"
INSIDE = "a file inside the spec's folder, by a relative path"


class PictureFault(ValueError):
    """A picture file that cannot be used.

    Attributes:
        problem: what is wrong with it.
        expected: what was expected instead.
    """

    def __init__(self, problem: str, expected: str) -> None:
        super().__init__(problem, expected)
        self.problem, self.expected = problem, expected


def read_picture(file: Path) -> Image.Image:
    """Read a PNG, JPEG or WebP file as RGB, rotated as its EXIF data say, transparent pixels laid on white.

    Raises:
        PictureFault: the file is missing, damaged, of another format, or not 8 to 8192 pixels a side.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    sane = f"{SMALLEST} to {LARGEST} pixels a side"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are checked here, and odd metadata
            require_regular(file)
            with Image.open(file, formats=FORMATS) as image:
                if not all(SMALLEST <= side <= LARGEST for side in image.size):
                    raise PictureFault(f"is {image.width}x{image.height} pixels", sane)
                picture = ImageOps.exif_transpose(image)
                if not picture.has_transparency_data:
                    return picture.convert("RGB")
                picture = picture.convert("RGBA")
    except PictureFault:
        raise
    except FileNotFoundError as error:
        raise PictureFault("no such file", READABLE) from error
    except UnidentifiedImageError as error:
        raise PictureFault("is not a picture of a known format", READABLE) from error
    except Image.DecompressionBombError as error:
        raise PictureFault("has far too many pixels", sane) from error
    except Exception as error:  # Pillow may raise anything on a damaged file
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise PictureFault(f"cannot be read ({reason})", READABLE) from error
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def picture_fault(path: str, folder: Path) -> tuple[str, str] | None:
    """Return what is wrong with the picture of a visual prompt and what was expected, or None.

    Args:
        path: as the spec gives it, relative to ``folder``.
        folder: where the spec lies.
    """
    if "\0" in path:
        return "contains a null character", INSIDE
    if Path(path).is_absolute():
        return f"is an absolute path: {path}", INSIDE
    try:
        home = folder.resolve()
        file = (home / path).resolve()  # follows links, which might lead out of the folder
        if not file.is_relative_to(home):
            return f"leaves the spec's folder: {path}", INSIDE
        if not file.is_file():
            return f"no such file: {file}", INSIDE
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        return f"cannot be opened: {path} ({error})", INSIDE
    try:
        read_picture(file)
    except PictureFault as fault:
        return f"{fault.problem}: {file}", fault.expected
    return None
