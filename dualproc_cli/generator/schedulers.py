"""Changing a pipeline's scheduler, and the schedulers that work, for messages about one that does not."""

import inspect
import traceback
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from dualproc_cli.errors import UserError
from dualproc_cli.known_models.matrix import PASSED, read_matrix

CLASS = "class"  # the option that replaces the scheduler


def changed_scheduler(scheduler: Any, options: Mapping[str, Any]) -> Any:
    """Return a scheduler like ``scheduler`` with other ``options``, those of `GeneratorSpec.scheduler`.

    Raises:
        UserError: diffusers has no such scheduler, or it has no such option.
    """
    kind = scheduler_class(type(scheduler), options)
    others = {key: value for key, value in options.items() if key != CLASS}
    try:
        return kind.from_config(scheduler.config, **others)
    except Exception as error:  # a scheduler checks its options in its own ways
        raise UserError(f"generator.scheduler: {kind.__name__} refuses {others} ({error})") from error


def scheduler_class(own: type, options: Mapping[str, Any]) -> Any:
    """Return the class of the scheduler that ``options`` make of one of class ``own``.

    Raises:
        UserError: diffusers has no such scheduler, or it has no such option.
    """
    name = options.get(CLASS)
    kind = own if name is None else getattr(diffusers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise UserError(
            f"generator.scheduler.class: diffusers has no scheduler {name}; expected one such as "
            f"{', '.join(working_schedulers()[:4])}"
        )
    known = [key for key in inspect.signature(kind.__init__).parameters if key != "self"]
    for key in options:
        if key != CLASS and key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"generator.scheduler.{key}: {kind.__name__} has no such option{hint} "
                f"(expected one of {', '.join(known)})"
            )
    return kind


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
