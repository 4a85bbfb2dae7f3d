"""The model classes that were tried, from ``matrix.json``, which the tests write. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dualproc_cli.errors import UserError

MATRIX = Path(__file__).with_name("matrix.json")
PASSED = "passed"
REFUSED = "is refused"  # the only check of a model that must be refused


@dataclass(frozen=True)
class Tried:
    """A class of models, and the results of its checks.

    Attributes:
        kind: ``generator``, ``vlm`` or ``scheduler``.
        name: the class: a diffusers pipeline or scheduler, or a transformers model.
        checks: the result of each check: ``passed``, or why it did not pass.
        workarounds: names of the changes that make such a model work.
        reason: why a check fails, or another remark.
    """

    kind: Literal["generator", "vlm", "scheduler"]
    name: str
    checks: dict[str, str]
    workarounds: tuple[str, ...]
    reason: str | None

    @property
    def works(self) -> bool:
        """Whether every check passed and the model is not refused."""
        return REFUSED not in self.checks and all(found == PASSED for found in self.checks.values())


def read_matrix() -> list[Tried] | None:
    """Return what was tried; None if the package has no table.

    Raises:
        UserError: the table is damaged.
    """
    if not MATRIX.is_file():
        return None
    try:
        return [
            Tried(
                record["kind"],
                record["name"],
                record["checks"],
                tuple(record["workarounds"]),
                record["reason"],
            )
            for record in json.loads(MATRIX.read_text("utf-8"))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{MATRIX}: damaged ({error}); install dualproc again") from error
