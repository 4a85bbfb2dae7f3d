"""Why a model cannot be used, in one line that says what to do."""

import json
import re
import traceback
from importlib import resources
from typing import NoReturn

from diffusers.utils.import_utils import BACKENDS_MAPPING
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dualproc_cli.errors import UserError
from dualproc_cli.spec import GeneratorSpec


def refuse(spec: GeneratorSpec, error: BaseException) -> NoReturn:
    """Raise a `UserError` for what a library raised while it loaded the model of ``spec``."""
    causes = _causes(error)
    reason = first_line(error)
    if _is(causes, GatedRepoError):
        advice = f"gated: accept its licence at https://huggingface.co/{spec.model}, then run `hf auth login`"
    elif _is(causes, RevisionNotFoundError):
        advice = f"no revision {spec.revision!r}; leave generator.revision out, or name a branch or a commit"
    elif _is(causes, RepositoryNotFoundError):
        advice = "no such hub model and no such folder; check the name (a private one needs `hf auth login`)"
    elif _is(causes, LocalEntryNotFoundError) or "not fully cached" in reason:
        advice = "the hub cannot be reached and the local cache has no whole copy; connect, or name a folder"
    elif _is(causes, FileNotFoundError):
        advice = f"{reason}; expected miniature, a hub model or the folder of a diffusers pipeline"
    elif package := missing_package(error):
        advice = f"it needs a package that is missing: pip install {package}"
    elif _is(causes, ImportError):
        advice = f"it needs a package that is missing ({reason}); install it"
    elif "trust_remote_code" in str(error):
        advice = "it runs code of its own; if you trust it, set generator.trust_remote_code: true"
    else:
        advice = f"cannot be loaded ({reason}); expected a diffusers text-to-image pipeline in safetensors"
    raise UserError(f"generator.model: {spec.model}: {advice}") from error


def missing_package(error: BaseException | None) -> str | None:
    """The package whose absence ``error`` is about, as pip calls it, or None."""
    for cause in _causes(error):
        # diffusers imports optional packages where they are installed, and uses some (ftfy) without asking.
        if isinstance(cause, NameError) and cause.name in BACKENDS_MAPPING:
            return cause.name
        if isinstance(cause, ImportError):
            hint = re.search(r"pip install (?:-U |--upgrade )?['\"`]?([A-Za-z][\w.-]*)", str(cause))
            return hint[1] if hint else cause.name
    return None


def scheduler_advice(error: BaseException | None) -> str:
    """Which schedulers work, where ``error`` came out of the model's own; nothing where it did not."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    blamed = any(frame.name in ("_set_timesteps", "_step") for frame in frames)
    return f"; schedulers that work: {', '.join(working_schedulers())}" if blamed else ""


def working_schedulers(check: str = "images") -> list[str]:
    """Names of the scheduler classes that passed ``check`` in the matrix, as packaged."""
    path = resources.files("dualproc_cli") / "models" / "matrix.json"
    passed = [
        record["name"].partition(",")[0] + "Scheduler"  # what follows are its options
        for record in json.loads(path.read_text(encoding="utf-8"))
        if record["kind"] == "scheduler" and record["checks"].get(check) == "passed"
    ]
    return list(dict.fromkeys(passed))


def first_line(error: BaseException | None) -> str:
    """What ``error`` says, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and len(causes) < 10:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _is(causes: list[BaseException], kind: type[Exception]) -> bool:
    return any(isinstance(cause, kind) for cause in causes)
