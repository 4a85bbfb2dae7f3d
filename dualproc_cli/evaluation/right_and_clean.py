"""What share of the pictures is right, clean, and both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dualproc_cli.measures import Judgement, Measure
from dualproc_cli.measures.clean import CleanRange
from dualproc_cli.spec import ControlSpec

HOLDS = 0.5  # a VLM gives the expected answer if P(answer) is above


@dataclass(frozen=True)
class Shares:
    """Shares of pictures; None if nothing judges whether they are right.

    Attributes:
        right: reach every goal. A picture that a measure could not judge does not.
        clean: are as free of artefacts as the base generator's pictures.
        right_and_clean: both.
    """

    right: float | None
    clean: float
    right_and_clean: float | None


@dataclass
class Pictures:
    """What was found in the pictures of one generator, prompt by prompt.

    Attributes:
        right: [N] bool for each prompt; None where nothing judges it.
        statistics: [N, S] values of the measures that decide whether a picture is clean, for each prompt.
    """

    right: list[Tensor | None] = field(default_factory=list)
    statistics: list[Tensor] = field(default_factory=list)

    def add(
        self,
        judged: Mapping[Measure, Judgement],
        goals: Sequence[Measure],
        clean: Sequence[Measure],
        also: Tensor | None = None,
    ) -> None:
        """Add the pictures of a prompt by what measures found in them.

        Args:
            judged: what was found, by measure.
            goals: those that say what is right.
            clean: those that say what is clean.
            also: [N] bool, what else has to hold of a right picture.
        """
        self.right.append(both(right_by_measures([judged[goal] for goal in goals]), also))
        self.statistics.append(torch.stack([judged[measure].value for measure in clean], 1))

    def shares(self, clean_range: CleanRange) -> Shares:
        """Return the shares of all pictures, by a range of the base generator's."""
        clean = clean_range.holds(torch.cat(self.statistics))
        known = [part for part in self.right if part is not None]
        if len(known) < len(self.right):
            return Shares(None, _share(clean), None)
        right = torch.cat(known)
        return Shares(_share(right), _share(clean), _share(right & clean))


def right_by_measures(judgements: Sequence[Judgement]) -> Tensor | None:
    """Return whether each picture [N] reaches the goals of all measures; None if none sets a goal."""
    successes = [found.success for found in judgements if found.success is not None]
    return torch.stack(successes).eq(1).all(0) if successes else None  # NaN, unjudged, is not 1


def learned_questions(spec: ControlSpec) -> list[str]:
    """Return the names of the questions that are learned: those with a weight above 0."""
    return [question.name for question in spec.questions if question.weight > 0]


def unjudged_questions(spec: ControlSpec, measures: Sequence[Measure]) -> tuple[str, ...]:
    """Return the names of the questions that are learned and whose answer no measure checks."""
    judged = {name for measure in measures for name in measure.judged_questions(spec)}
    return tuple(name for name in learned_questions(spec) if name not in judged)


def answered(probabilities: dict[str, Tensor], questions: Sequence[str]) -> Tensor:
    """Return whether a VLM gives the expected answer to all of ``questions``: [N] bool.

    Args:
        probabilities: P(answer) [N] by question.
        questions: names, at least one.
    """
    return (torch.stack([probabilities[name] for name in questions]) > HOLDS).all(0).cpu()


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return where both [N] hold; one that is None is left out."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _share(found: Tensor) -> float:
    return float(found.float().mean())
