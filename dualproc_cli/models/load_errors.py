"""One line of advice when the Hugging Face libraries cannot load a model."""

import re

from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def advice(error: BaseException, key: str, model: str, revision: str | None, expected: str) -> str:
    """Return what is wrong with ``model`` and what to do, in one line.

    The libraries wrap each other's errors, so all causes are looked at.

    Args:
        error: what loading raised.
        key: the part of the spec that names the model, ``generator`` or ``vlm``.
        model: its name in the spec.
        revision: the revision in the spec.
        expected: what the model should have been, for errors that say nothing else.
    """
    chain, reason = causes(error), first_line(error)

    def caused_by(kind: type[Exception]) -> bool:
        return any(isinstance(cause, kind) for cause in chain)

    if caused_by(GatedRepoError):
        return f"gated: accept its licence at https://huggingface.co/{model}, then run `hf auth login`"
    if caused_by(RevisionNotFoundError):
        return f"no revision {revision!r}; leave {key}.revision out, or name a branch or a commit"
    if caused_by(RepositoryNotFoundError):
        return "no such hub model and no such folder; check the name (a private one needs `hf auth login`)"
    if caused_by(LocalEntryNotFoundError) or "not fully cached" in reason:
        return "the hub cannot be reached and the local cache has no complete copy; connect, or name a folder"
    if package := missing_package(error):
        return f"it needs a package that is missing: pip install {package}"
    if caused_by(ImportError):
        return f"it needs a package that is missing ({reason}); install it"
    if "trust_remote_code" in str(error):
        return f"it runs code of its own; if you trust it, set {key}.trust_remote_code: true"
    if caused_by(FileNotFoundError):
        return f"{reason}; expected {expected}"
    return f"cannot be loaded ({reason}); expected {expected}"


def missing_package(error: BaseException | None) -> str | None:
    """Return pip's name of the missing package; None if ``error`` is about something else."""
    from diffusers.utils.import_utils import BACKENDS_MAPPING  # slow, and needed for errors alone

    for cause in causes(error):
        # diffusers imports optional packages where they are installed, and uses some (ftfy) without checking.
        if isinstance(cause, NameError) and cause.name in BACKENDS_MAPPING:
            return cause.name
        if isinstance(cause, ImportError):
            hint = re.search(r"pip install (?:-U |--upgrade )?['\"`]?([A-Za-z][\w.-]*\w)", str(cause))
            if name := hint[1] if hint else cause.name:
                return name.partition(".")[0]
    return None


def causes(error: BaseException | None) -> list[BaseException]:
    """Return ``error`` and the errors that it was raised from, the latest first."""
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def first_line(error: BaseException | None) -> str:
    """Return the first line of ``error``'s message, or its class if the message is empty."""
    return next(iter(str(error).strip().splitlines()), "").rstrip(" .:") or type(error).__name__
