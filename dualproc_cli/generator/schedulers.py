"""The schedulers that work, for messages about one that does not."""

import traceback

from dualproc_cli.known_models.matrix import PASSED, read_matrix


def scheduler_advice(error: BaseException | None) -> str:
    """Return advice that names working schedulers if the model's own raised ``error``, else ""."""
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
