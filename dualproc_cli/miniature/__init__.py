"""The embedded default: a small generator and a small VLM of real classes, trained on a procedural world."""

import json
from pathlib import Path

from dualproc_cli.errors import UserError
from dualproc_cli.files import digest

WEIGHTS = Path(__file__).parent / "weights"
DIGESTS = "digests.json"  # of every file under weights/, written when weights are released
RESTORE = "pip install --force-reinstall --no-deps dualproc"


def generator_folder() -> Path:
    """The generator's folder, a diffusers FluxPipeline; raises UserError if a file is missing or damaged."""
    return _checked("generator")


def vlm_folder() -> Path:
    """The VLM's folder, a transformers Idefics3; raises UserError if a file is missing or damaged."""
    return _checked("vlm")


def reader_folder() -> Path:
    """The folder of the measures' reader; raises UserError if a file is missing or damaged."""
    return _checked("reader")


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that the miniature's generator has never seen."""
    from dualproc_cli.miniature import captions

    return captions.unknown_words(prompt)


def _checked(part: str) -> Path:
    try:
        wanted = json.loads((WEIGHTS / DIGESTS).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{WEIGHTS / DIGESTS}: missing or damaged; restore the miniature with: {RESTORE}"
        ) from error
    for name, expected in wanted.items():
        if not name.startswith(f"{part}/"):
            continue
        path = WEIGHTS / name
        if not path.is_file():
            raise UserError(f"{path}: missing; restore the miniature with: {RESTORE}")
        if digest(path) != expected:
            raise UserError(f"{path}: damaged (its SHA-256 differs); restore the miniature with: {RESTORE}")
    return WEIGHTS / part
