"""The embedded default: a small generator and a small VLM of real classes, trained on a procedural world."""

import hashlib
import json
from pathlib import Path

from dualproc_cli.errors import UserError
from dualproc_cli.files import digest

WEIGHTS = Path(__file__).parent / "weights"
DIGESTS = "digests.json"  # of every file under weights/, written when weights are released
RESTORE = "pip install --force-reinstall --no-deps dualproc"


def generator_folder(revision: str | None = None) -> Path:
    """The generator's folder, a diffusers FluxPipeline.

    Raises:
        UserError: a file is missing or damaged, or the weights are not those of ``revision``.
    """
    return _checked("generator", revision)


def vlm_folder(revision: str | None = None) -> Path:
    """The VLM's folder, a transformers Idefics3; raises UserError as `generator_folder` does."""
    return _checked("vlm", revision)


def reader_folder() -> Path:
    """The folder of the measures' reader; raises UserError as `generator_folder` does."""
    return _checked("reader", None)


def revision(part: str) -> str:
    """Which weights ``generator`` or ``vlm`` has, as a hub model's commit says it: 40 hexadecimal digits."""
    digests = _digests()
    own = {name: value for name, value in digests.items() if name.startswith(f"{part}/")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:40]


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that the miniature's generator has never seen."""
    from dualproc_cli.miniature.world import captions

    return captions.unknown_words(prompt)


def _digests() -> dict[str, str]:
    try:
        return json.loads((WEIGHTS / DIGESTS).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{WEIGHTS / DIGESTS}: missing or damaged; restore the miniature with: {RESTORE}"
        ) from error


def _checked(part: str, wanted: str | None) -> Path:
    for name, expected in _digests().items():
        if not name.startswith(f"{part}/"):
            continue
        path = WEIGHTS / name
        if not path.is_file():
            raise UserError(f"{path}: missing; restore the miniature with: {RESTORE}")
        if digest(path) != expected:
            raise UserError(f"{path}: damaged (its SHA-256 differs); restore the miniature with: {RESTORE}")
    if wanted not in (None, own := revision(part)):
        raise UserError(
            f"{part}: the miniature {wanted:.12} is wanted and this dualproc has {own:.12}: other weights; "
            "learn the control again, or install the dualproc that it was learned with"
        )
    return WEIGHTS / part
