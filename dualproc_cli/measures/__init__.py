"""Measures, which judge pictures without the VLM that was trained against.

An entry of ``evaluate.measures`` is either the name of one of the miniature's measures, which are in
`dualproc_cli.miniature.world.measures`, or a mapping with a type: ``type: some-name`` stands for the class
``SomeName`` of ``measures/some_name.py``, which takes its parameters as a model of
`dualproc_cli.spec.measures`. To add a measure, add this class and this model.

This module imports no torch, and imports the miniature only if a spec names one of its measures.
"""

from importlib import import_module

from dualproc_cli.measures.measure import Evidence, Judgement, Measure, Refusal, Role, spread
from dualproc_cli.spec import ControlSpec, LoadedSpec, SpecError
from dualproc_cli.spec.measures import DistanceMeasure, DiversityMeasure, MeasureSpec, StatisticMeasure

__all__ = [
    "Evidence",
    "Judgement",
    "Measure",
    "Refusal",
    "Role",
    "check_measures",
    "measures_of",
    "measures_of_evaluation",
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


def measures_of(spec: ControlSpec) -> list[Measure]:
    """Return the measures that a spec names; with any of the miniature's, also its `companions`."""
    named = [_measure(entry) for entry in spec.evaluate.measures]
    if any(isinstance(entry, str) for entry in spec.evaluate.measures):
        named += import_module("dualproc_cli.miniature.world.measures").companions()
    return _each_once(named)


def measures_of_evaluation(spec: ControlSpec) -> list[Measure]:
    """Return the measures of a spec, and those of every evaluation whose name is still free."""
    return _each_once([*measures_of(spec), *map(_measure, ALWAYS)])


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
        return import_module("dualproc_cli.miniature.world.measures").measure_named(entry)
    module = import_module(f"dualproc_cli.measures.{entry.type.replace('-', '_')}")
    return getattr(module, entry.type.title().replace("-", ""))(entry)


def _each_once(measures: list[Measure]) -> list[Measure]:
    """Return the first measure of each role and name, by which reports list them."""
    found: dict[tuple[Role, str], Measure] = {}
    for measure in measures:
        found.setdefault((measure.role, measure.name), measure)
    return list(found.values())
