"""Why a measure cannot judge pictures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a measure cannot judge the pictures of a spec.

    Attributes:
        problem: what is wrong, such as "'line' is of type line".
        expected: what was expected instead.
        key: the parameter of the measure that is at fault; None for the measure itself.
    """

    problem: str
    expected: str
    key: str | None = None
