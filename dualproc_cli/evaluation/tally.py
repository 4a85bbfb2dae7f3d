"""Collecting what is found in pictures, prompt by prompt, for a `Comparison`."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from dualproc_cli.evaluation.comparison import (
    ArtefactReport,
    Comparison,
    Figures,
    GoalReport,
    Source,
    SpreadReport,
    known,
    ratio,
)
from dualproc_cli.measures import Judgement, Measure, spread

Column = Literal["base", "learned", "base_held_out", "learned_held_out"]
TRAINED: tuple[Column, Column] = ("base", "learned")
HELD_OUT: tuple[Column, Column] = ("base_held_out", "learned_held_out")


class Answers:
    """P(answer) of a VLM, by question and by kind of pictures."""

    def __init__(self) -> None:
        self._found: dict[str, dict[Column, list[Tensor]]] = {}

    def add(self, column: Column, probabilities: dict[str, Tensor]) -> None:
        """Add P(answer) [N] about N pictures, by question."""
        for name, values in probabilities.items():
            self._found.setdefault(name, defaultdict(list))[column].append(values.float().cpu())

    def __bool__(self) -> bool:
        """Return whether the VLM was asked."""
        return bool(self._found)

    def figures(self) -> dict[str, Figures]:
        """Return the means by question."""
        return {name: means(found) for name, found in self._found.items()}


class Tally:
    """Judgements of one measure, by kind of pictures.

    For a measure of variety, the spread of each prompt's pictures is kept instead of the values.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._values: dict[Column, list[Tensor]] = defaultdict(list)
        self._successes: dict[Column, list[Tensor]] = defaultdict(list)
        self._spreads: dict[Column, list[float]] = defaultdict(list)

    def add(self, column: Column, judgement: Judgement) -> None:
        """Add what was found in the pictures of one prompt."""
        if self.measure.role == "variety":
            self._spreads[column].append(_spread_of_judged(judgement.value))
            return
        self._values[column].append(judgement.value)
        if judgement.success is not None:
            self._successes[column].append(judgement.success)

    def report(self, result: Comparison, fixed: Collection[str] = ()) -> None:
        """Write what was found into ``result``; ``fixed`` names the properties that goals fix."""
        measure = self.measure
        source = Source(measure.unit, measure.model, measure.revision, measure.licence)
        if measure.role == "variety":
            base, learned = (_root_mean_square(self._spreads[column]) for column in TRAINED)
            result.spread[measure.name] = SpreadReport(
                base, learned, ratio(learned, base), measure.name in fixed, source
            )
            return
        value, judged = means(self._values), _shares(self._successes or self._values)
        if measure.role == "artefact":
            ratios = ratio(value.learned, value.base), ratio(value.learned_held_out, value.base_held_out)
            result.artefacts[measure.name] = ArtefactReport(value, *ratios, judged, source)
        else:
            success = means(self._successes) if self._successes else None
            result.measures[measure.name] = GoalReport(success, value, judged, source)


def means(found: dict[Column, list[Tensor]]) -> Figures:
    """Return the means of the values that are not NaN."""
    columns = {column: torch.cat(values).float() for column, values in found.items()}
    return Figures(**{column: known(float(v[~v.isnan()].mean())) for column, v in columns.items()})


def _shares(found: dict[Column, list[Tensor]]) -> Figures:
    """Return the shares of the values that are not NaN."""
    return Figures(
        **{column: float((~torch.cat(values).isnan()).float().mean()) for column, values in found.items()}
    )


def _spread_of_judged(values: Tensor) -> float:
    """Return the spread of a property [N, D] over the judged pictures; NaN for fewer than two."""
    judged = values[~values.isnan().any(1)]
    return spread(judged) if len(judged) > 1 else float("nan")


def _root_mean_square(spreads: Sequence[float]) -> float | None:
    """Return the root mean square of the spreads that are not NaN; None without any."""
    values = torch.tensor(spreads)
    return known(float(values[~values.isnan()].square().mean().sqrt()))
