"""The results of an evaluation: numbers of the base generator and of the learned control."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """One number for each kind of pictures; None if there are no such pictures or none was judged.

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
    """Where a measure's numbers come from.

    Attributes:
        unit: of the value.
        model: the measure's model; None without one.
        revision: of the model.
        licence: of the model.
    """

    unit: str
    model: str | None
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class GoalReport:
    """How well the pictures reach the goal of a measure.

    Attributes:
        success: share of the judged pictures that reach it; None if the measure has no goal.
        value: mean of the measured values.
        judged: share of the pictures that could be judged.
        source: unit and model of the measure.
    """

    success: Figures | None
    value: Figures
    judged: Figures
    source: Source


@dataclass(frozen=True)
class ArtefactReport:
    """How strong an artefact is in the pictures.

    Attributes:
        value: mean of the measured values.
        ratio: learned over base, on the prompts that were learned on; None if the base's is not above 0.
        ratio_held_out: the same on the held-out prompts.
        judged: share of the pictures that could be judged.
        source: unit and model of the measure.
    """

    value: Figures
    ratio: float | None
    ratio_held_out: float | None
    judged: Figures
    source: Source


@dataclass(frozen=True)
class SpreadReport:
    """How much a property varies from seed to seed, on the prompts that were learned on.

    Attributes:
        base: spread over a prompt's seeds, root mean square over the prompts; None if no prompt was judged.
        learned: the same for the learned control.
        ratio: learned over base; at 1 all variety is kept. None if the base does not vary.
        fixed: whether a goal of the control fixes the property, so that losing its variety is no collapse.
        source: unit and model of the measure.
    """

    base: float | None
    learned: float | None
    ratio: float | None
    fixed: bool
    source: Source


@dataclass(frozen=True)
class ProbeReport:
    """What is left of the VLM's answers under a probe, see `dualproc_cli.evaluation.probes`.

    Attributes:
        stands: share of the pictures to which the VLM that was trained against still gives all expected
            answers.
        questions: mean P(answer) by question, of the questions that the probe changes.
    """

    stands: Figures
    questions: dict[str, Figures]


@dataclass(frozen=True)
class Strength:
    """What the control draws at one strength of its adapter, in a few pictures.

    Attributes:
        scale: of the adapter: 0 is the base generator, 1 as it was learned.
        right: share of the pictures that reach every goal; None if nothing judges that.
        clean: share of the pictures that are clean.
        right_and_clean: share of both.
        questions: mean P(answer) by question.
    """

    scale: float
    right: float | None
    clean: float
    right_and_clean: float | None
    questions: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """What changed between the base generator and the learned control.

    Attributes:
        seeds: held-out seeds per prompt.
        right: share of the pictures that reach every goal; None if nothing judges that.
        clean: share of the pictures that are clean, see `dualproc_cli.measures.clean`.
        right_and_clean: share of the pictures that are both.
        right_by: who says what is right: "measures", "second VLM", both, or nobody.
        clean_by: names of the measures that decide what is clean.
        unjudged: names of the learned questions whose answer neither of them checks.
        automatic: names of the measures that were chosen because the spec names none.
        answered: share of the pictures to which the VLM that was trained against gives all expected answers.
        steady: the same where it gives them under small perturbations too, and under the `PROBES`.
        questions: mean P(answer) by question.
        perturbed: mean of the lowest P(answer) over small perturbations of each picture, by question.
        second_vlm: the same as ``questions`` by a VLM that was not trained against; empty without one.
        probes: what is left of the answers under each probe, by its name.
        blank: P(answer) of each question about a gray picture with the same visual prompt: the VLM's bias.
        strengths: what is drawn at other strengths; empty unless it was asked for.
        measures: reports of the measures that set goals, by name.
        artefacts: reports of the measures of artefacts, by name.
        spread: reports of the measures of variety, by name.
    """

    seeds: int
    right: Figures | None = None
    clean: Figures = field(default_factory=Figures)
    right_and_clean: Figures | None = None
    right_by: tuple[str, ...] = ()
    clean_by: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    automatic: tuple[str, ...] = ()
    answered: Figures = field(default_factory=Figures)
    steady: Figures = field(default_factory=Figures)
    questions: dict[str, Figures] = field(default_factory=dict)
    perturbed: dict[str, Figures] = field(default_factory=dict)
    second_vlm: dict[str, Figures] = field(default_factory=dict)
    probes: dict[str, ProbeReport] = field(default_factory=dict)
    blank: dict[str, float] = field(default_factory=dict)
    strengths: tuple[Strength, ...] = ()
    measures: dict[str, GoalReport] = field(default_factory=dict)
    artefacts: dict[str, ArtefactReport] = field(default_factory=dict)
    spread: dict[str, SpreadReport] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as plain data that `json.dumps` takes; unknown numbers are None."""
        return asdict(self)


def ratio(learned: float | None, base: float | None) -> float | None:
    """Return learned over base; None where either is unknown, or the base is not above 0."""
    if learned is None or base is None or not base > 0:
        return None
    return learned / base


def known(number: float) -> float | None:
    """Return the number, or None for NaN."""
    return None if math.isnan(number) else number
