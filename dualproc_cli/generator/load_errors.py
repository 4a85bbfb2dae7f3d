"""Why a model cannot be used, in one line that says what to do."""

import traceback
from typing import NoReturn

from diffusers.utils.import_utils import BACKENDS_MAPPING

from dualproc_cli.errors import UserError
from dualproc_cli.known_models.matrix import PASSED, read_matrix
from dualproc_cli.models import load_errors
from dualproc_cli.spec import GeneratorSpec

EXPECTED = "a diffusers text-to-image pipeline in safetensors: a hub id, a folder or miniature"


def refuse(spec: GeneratorSpec, error: BaseException) -> NoReturn:
    """Raise a `UserError` for what a library raised while it loaded the model of ``spec``."""
    package = missing_package(error)
    found = (
        f"it needs a package that is missing: pip install {package}"
        if package
        else load_errors.advice(error, "generator", spec.model, spec.revision, EXPECTED)
    )
    raise UserError(f"generator.model: {spec.model}: {found}") from error


def missing_package(error: BaseException | None) -> str | None:
    """Return the package whose absence caused ``error``, as pip calls it, or None."""
    for cause in load_errors.causes(error):
        # diffusers imports optional packages where they are installed, and uses some (ftfy) without asking.
        if isinstance(cause, NameError) and cause.name in BACKENDS_MAPPING:
            return cause.name
    return load_errors.missing_package(error)


def scheduler_advice(error: BaseException | None) -> str:
    """Return advice that names working schedulers if the model's own raised ``error``, or an empty text."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    blamed = any(frame.name in ("_set_timesteps", "_step") for frame in frames)
    return f"; schedulers that work: {', '.join(working_schedulers())}" if blamed else ""


def working_schedulers(check: str = "images") -> list[str]:
    """Return the names of the scheduler classes that passed ``check`` in the packaged matrix."""
    passed = [
        entry.name.partition(",")[0] + "Scheduler"  # its options follow the comma
        for entry in read_matrix() or ()
        if entry.kind == "scheduler" and entry.checks.get(check) == PASSED
    ]
    return list(dict.fromkeys(passed))
