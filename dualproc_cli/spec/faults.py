"""Faults in a spec, their places, and the error that lists them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

from dualproc_cli.errors import UserError
from dualproc_cli.printable import printable

MOST = 100  # mistakes that are listed
MANY_WORDS = 200  # among more, no similar one is looked for: it takes too long

KeyPath: TypeAlias = tuple[str | int, ...]  # ("questions", 0, "weight"); dotted when shown


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file, or another source of values.

    Attributes:
        source: the file's path, or another source, such as ``--set learn.steps=50``.
        line: from 1; 0 if the source is not a file.
        column: from 1; 0 if the source is not a file.
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Fault:
    """One mistake in a spec.

    Attributes:
        place: where it is.
        key: the dotted key; empty for a fault of the whole file.
        problem: what is wrong.
        expected: what was expected instead.
    """

    place: Place
    key: str
    problem: str
    expected: str

    def __str__(self) -> str:
        parts = [str(self.place), self.key, f"{self.problem} (expected {self.expected})"]
        return printable(": ".join(part for part in parts if part))


class SpecError(UserError):
    """The mistakes of a spec, one a line, and how many more there are.

    Attributes:
        faults: at most `MOST` mistakes: those of the file in reading order, then those of the command line.
        more: how many mistakes were left out.
    """

    def __init__(self, faults: Iterable[Fault], more: int = 0) -> None:
        found = sorted(set(faults), key=lambda fault: (not fault.place.line, fault))
        self.faults = found[:MOST]
        self.more = more + len(found) - len(self.faults)
        super().__init__("\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        """The mistakes, one a line, and how many more there are."""
        more = [f"and {self.more:,} more mistakes"] if self.more else []
        return [*map(str, self.faults), *more]


def dotted(path: KeyPath) -> str:
    """Return a key path as ``--set`` takes it, such as ``questions.0.weight``."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """Return a value as error messages show it: short, on one line, in YAML's notation."""
    match value:
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "empty"
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str, limit: int = 60) -> str:
    """Return the text on one line, cut if it is long."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``; did you mean 'steps'?``, or an empty string if no known word is similar."""
    if len(known) > MANY_WORDS:
        return ""
    near = get_close_matches(word, known, n=1, cutoff=0.55)
    return f"; did you mean '{near[0]}'?" if near else ""
