"""Measures, which judge pictures without the VLM that was trained against.

An entry of ``evaluate.measures`` is either the name of one of the miniature's measures, which are in
`dualproc_cli.miniature.world.measures`, or a mapping with a type: ``type: some-name`` stands for the class
``SomeName`` of ``measures/some_name.py``, which takes its parameters as a model of
`dualproc_cli.spec.measures`. To add a measure, add this class and this model.

This module imports no torch, and imports the miniature only if a spec names one of its measures or draws its
pictures.
"""

from importlib import import_module
from types import ModuleType

from dualproc_cli.measures.measure import Evidence, Judgement, Measure, Role, spread
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.measures.turns import judge_in_turn
from dualproc_cli.spec import ControlSpec, LoadedSpec, Question, SpecError
from dualproc_cli.spec.measures import DistanceMeasure, DiversityMeasure, MeasureSpec, StatisticMeasure
from dualproc_cli.spec.models import MINIATURE

__all__ = [
    "Evidence",
    "Judgement",
    "Measure",
    "Refusal",
    "Role",
    "automatic_measures",
    "check_measures",
    "clean_measures",
    "judge_in_turn",
    "measures_of",
    "measures_of_evaluation",
    "other_wordings",
    "spread",
]

# The measures of every evaluation, for any model, even if the spec does not name them.
ALWAYS: tuple[MeasureSpec, ...] = (
    DistanceMeasure(name="distance"),
    DiversityMeasure(name="diversity"),
    StatisticMeasure(name="high-frequency", of="high-frequency"),
    StatisticMeasure(name="clipping", of="clipping"),
    StatisticMeasure(name="saturation", of="saturation"),
    StatisticMeasure(name="grid", of="grid"),
)


# The statistics that decide whether a picture is clean, of any model but the miniature. Saturation is not one
# of them: a control may well change it.
CLEAN_BY = ("high-frequency", "clipping", "grid")


def measures_of(spec: ControlSpec) -> list[Measure]:
    """Return the measures that a spec names, or those chosen by `automatic_measures`.

    With any of the miniature's come its `companions`.
    """
    entries = spec.evaluate.measures or automatic_measures(spec)
    named = [_measure(entry) for entry in entries]
    if any(isinstance(entry, str) for entry in entries):
        named += _miniature().companions()
    return _each_once(named)


def automatic_measures(spec: ControlSpec) -> tuple[str, ...]:
    """Return the measures chosen for a spec that names none: the miniature's that can judge its questions."""
    if spec.evaluate.measures or not _reads_scenes(spec):
        return ()
    return _miniature().suitable(spec)


def measures_of_evaluation(spec: ControlSpec) -> list[Measure]:
    """Return the measures of a spec, and those of every evaluation whose name is still free."""
    companions = _miniature().companions() if _reads_scenes(spec) else []
    return _each_once([*measures_of(spec), *companions, *map(_measure, ALWAYS)])


def clean_measures(spec: ControlSpec) -> list[Measure]:
    """Return the measures of artefacts that decide whether pictures of ``spec`` are clean.

    They are the distance to the nearest scene for the miniature, and statistics of the pixels otherwise.
    """
    if _reads_scenes(spec):
        return [_miniature().Artefact("residual")]
    return [_measure(entry) for entry in ALWAYS if entry.name in CLEAN_BY]


def other_wordings(spec: ControlSpec, question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return wordings of a question that are never trained on, and those that ask for its opposite.

    They are the question's own ``held_out_paraphrases`` and ``opposites``, and what else the VLM is known to
    be able to read, which is known of the miniature's.
    """
    held_out, opposites = question.held_out_paraphrases, question.opposites
    if spec.vlm.model == MINIATURE:
        known = import_module("dualproc_cli.miniature.world.goals").other_wordings(question)
        held_out, opposites = (
            tuple(dict.fromkeys((*own, *others)))
            for own, others in zip((held_out, opposites), known, strict=True)
        )
    return held_out, opposites


def check_measures(loaded: LoadedSpec) -> None:
    """Ask every measure that a spec names whether it can judge the spec's pictures.

    Raises:
        SpecError: some cannot; the error holds the reason of each.
    """
    faults = []
    for index, entry in enumerate(loaded.spec.evaluate.measures):
        refusal = _measure(entry).refuses(loaded.spec)
        if refusal:
            key = (refusal.key,) if refusal.key else ()
            at = ("evaluate", "measures", index, *key)
            faults.append(loaded.fault(at, refusal.problem, refusal.expected))
    if faults:
        raise SpecError(faults)


def _measure(entry: str | MeasureSpec) -> Measure:
    if isinstance(entry, str):
        return _miniature().measure_named(entry)
    module = import_module(f"dualproc_cli.measures.{entry.type.replace('-', '_')}")
    return getattr(module, entry.type.title().replace("-", ""))(entry)


def _reads_scenes(spec: ControlSpec) -> bool:
    """Return whether the pictures of ``spec`` are the miniature's, of the size that its measures read."""
    return spec.generator.model == MINIATURE and _miniature().Subject().refuses(spec) is None


def _miniature() -> ModuleType:
    return import_module("dualproc_cli.miniature.world.measures")


def _each_once(measures: list[Measure]) -> list[Measure]:
    """Return the first measure of each role and name, by which reports list them."""
    found: dict[tuple[Role, str], Measure] = {}
    for measure in measures:
        found.setdefault((measure.role, measure.name), measure)
    return list(found.values())
