"""What has been tried: ``matrix.json``, written from the results of the tests. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dualproc_cli.errors import UserError

MATRIX = Path(__file__).with_name("matrix.json")
PASSED = "passed"
REFUSED = "is refused"  # the one check of a model that cannot be used


@dataclass(frozen=True)
class Tried:
    """One class of models, and how its checks went.

    Attributes:
        name: of the class: a diffusers pipeline or scheduler, or a transformers model.
        checks: what was checked -> ``passed``, or why not.
        workarounds: what is changed in such a model so that it works.
        reason: why a check fails, or what else is to be known, or None.
    """

    kind: Literal["generator", "vlm", "scheduler"]
    name: str
    checks: dict[str, str]
    workarounds: tuple[str, ...]
    reason: str | None

    @property
    def works(self) -> bool:
        """Whether every check passed, and it is not one of those that are refused, as it is to be."""
        return REFUSED not in self.checks and all(found == PASSED for found in self.checks.values())


def read_matrix() -> list[Tried] | None:
    """What was tried, or None where there is no table.

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
