"""The shipped weights of the miniature, the embedded default: their folders, revisions and digests.

The miniature is a small generator and a small VLM of real classes. `miniature.world` holds the procedural
world that they were trained on, `miniature.training` their training.
"""

import hashlib
import json
from pathlib import Path

from dualproc_cli.errors import UserError
from dualproc_cli.files import digest

WEIGHTS = Path(__file__).parent / "weights"
DIGESTS = "digests.json"  # SHA-256 of every file of the networks, written when weights are released
RESTORE = "pip install --force-reinstall --no-deps dualproc"


def generator_folder(revision: str | None = None) -> Path:
    """Return the folder of the generator, a diffusers FluxPipeline.

    Args:
        revision: which weights are wanted, as `revision` names them; None for whichever are installed.

    Raises:
        UserError: a file is missing or damaged, or the installed weights are not those of ``revision``.
    """
    return _checked("generator", revision)


def vlm_folder(revision: str | None = None) -> Path:
    """Return the folder of the VLM, a transformers Idefics3; otherwise as `generator_folder`."""
    return _checked("vlm", revision)


def reader_folder() -> Path:
    """Return the folder of the scene reader, which the measures use; errors as in `generator_folder`."""
    return _checked("reader", None)


def revision(part: str) -> str:
    """Return the revision of a part's weights, 40 hexadecimal digits like a commit on the hub.

    Args:
        part: ``generator``, ``vlm`` or ``reader``.

    Raises:
        UserError: the file of the digests is missing or damaged.
    """
    digests = _digests()
    own = {name: value for name, value in digests.items() if name.startswith(f"{part}/")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:40]


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
            f"{part}: the miniature's weights {wanted:.12} are wanted, but this dualproc has {own:.12}; "
            "learn the control again, or install the version of dualproc that it was learned with"
        )
    return WEIGHTS / part
