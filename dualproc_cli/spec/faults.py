"""A fault in a spec, where it is, and the error that lists all of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

from dualproc_cli.errors import UserError

KeyPath: TypeAlias = tuple[str | int, ...]  # ("questions", 0, "weight"); dotted when shown


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file (line and column from 1), or another source such as a ``--set`` (both 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Fault:
    """One mistake: where, in which key, what is wrong and what was expected."""

    place: Place
    key: str
    problem: str
    expected: str

    def __str__(self) -> str:
        parts = [str(self.place), self.key, f"{self.problem} (expected {self.expected})"]
        line = ": ".join(part for part in parts if part)
        # A file may hold any character; none may break the line or reach the terminal as a command.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class SpecError(UserError):
    """All mistakes of a spec, one a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        # What the command line says comes after what the file says; a file's faults in reading order.
        self.faults = sorted(set(faults), key=lambda fault: (not fault.place.line, fault))
        super().__init__("\n".join(map(str, self.faults)))


def dotted(path: KeyPath) -> str:
    """``questions.0.weight``, as ``--set`` takes it."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """A value as a message names it: short, on one line, as YAML would have it."""
    match value:
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "empty"
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str, limit: int = 60) -> str:
    """The text on one line, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'steps'?``, or nothing where no known word is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.55)
    return f"; did you mean '{near[0]}'?" if near else ""
