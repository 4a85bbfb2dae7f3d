"""What an evaluation found, as numbers: the base generator beside the learned control."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """One number for each kind of pictures; None where there are no such pictures, or none was judged.

    Attributes:
        base: of the base generator, on the prompts that were learned on.
        learned: of the learned control, on the same prompts.
        base_held_out: of the base generator, on the held-out prompts.
        learned_held_out: of the learned control, on the held-out prompts.
    """

    base: float | None = None
    learned: float | None = None
    base_held_out: float | None = None
    learned_held_out: float | None = None

    def values(self) -> tuple[float | None, ...]:
        """Return the four numbers in their order."""
        return self.base, self.learned, self.base_held_out, self.learned_held_out


@dataclass(frozen=True)
class Source:
    """By what was measured.

    Attributes:
        unit: of the value.
        model: the measure's model, if it has one.
        revision: of the model.
        licence: of the model.
    """

    unit: str
    model: str | None
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class GoalReport:
    """How well the pictures do what a measure asks for.

    Attributes:
        success: share of the judged pictures that do; None where no goal is set.
        value: mean of what was measured.
        judged: share of the pictures that could be judged.
        source: by what.
    """

    success: Figures | None
    value: Figures
    judged: Figures
    source: Source


@dataclass(frozen=True)
class ArtefactReport:
    """How much of what should not be there is in the pictures.

    Attributes:
        value: mean of what was measured.
        ratio: learned over base, on the prompts that were learned on; None where the base has none.
        ratio_held_out: the same on the held-out prompts.
        judged: share of the pictures that could be judged.
        source: by what.
    """

    value: Figures
    ratio: float | None
    ratio_held_out: float | None
    judged: Figures
    source: Source


@dataclass(frozen=True)
class SpreadReport:
    """How much of what varies from seed to seed still does, on the prompts that were learned on.

    Attributes:
        base: spread over a prompt's seeds, root mean square over the prompts; None where none was judged.
        learned: the same of the learned control.
        ratio: learned over base: 1 keeps all variety. None where the base does not vary.
        source: by what.
    """

    base: float | None
    learned: float | None
    ratio: float | None
    source: Source


@dataclass(frozen=True)
class Comparison:
    """What changed between the base generator and the learned control.

    Attributes:
        seeds: held-out seeds per prompt.
        questions: mean P(answer) by question.
        second_vlm: the same by a VLM that was not trained against; empty without one.
        measures: the measures' goals, by name.
        artefacts: what should not be there, by name.
        spread: what should go on varying, by name.
    """

    seeds: int
    questions: dict[str, Figures] = field(default_factory=dict)
    second_vlm: dict[str, Figures] = field(default_factory=dict)
    measures: dict[str, GoalReport] = field(default_factory=dict)
    artefacts: dict[str, ArtefactReport] = field(default_factory=dict)
    spread: dict[str, SpreadReport] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain objects of numbers and text, for machines; what is not known is null."""
        return asdict(self)


def ratio(learned: float | None, base: float | None) -> float | None:
    """Return learned over base; None where either is unknown, or the base is not above 0."""
    if learned is None or base is None or not base > 0:
        return None
    return learned / base


def known(number: float) -> float | None:
    """Return the number, or None for NaN."""
    return None if math.isnan(number) else number
