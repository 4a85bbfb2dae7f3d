"""What judges a picture without the VLM that was trained against.

An entry of ``evaluate.measures`` is the name of one of the miniature's measures, which are in
`dualproc_cli.miniature.world.measures`, or a mapping: ``type: line-weight`` is the class ``LineWeight`` of
``measures/line_weight.py``, made from its parameters, a model of `dualproc_cli.spec.measures`. Whoever adds a
measure adds these two.

No torch is imported here, nor anything of the miniature unless a spec names its measures.
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

# What every evaluation measures, of any model and without being named.
ALWAYS: tuple[MeasureSpec, ...] = (
    DistanceMeasure(name="distance"),
    DiversityMeasure(name="diversity"),
    StatisticMeasure(name="high-frequency", of="high-frequency"),
    StatisticMeasure(name="clipping", of="clipping"),
    StatisticMeasure(name="saturation", of="saturation"),
    StatisticMeasure(name="grid", of="grid"),
)


def measures_of(spec: ControlSpec) -> list[Measure]:
    """Return the measures that a spec names, and those that come along with the miniature's."""
    named = [_measure(entry) for entry in spec.evaluate.measures]
    if any(isinstance(entry, str) for entry in spec.evaluate.measures):
        named += import_module("dualproc_cli.miniature.world.measures").companions()
    return _each_once(named)


def measures_of_evaluation(spec: ControlSpec) -> list[Measure]:
    """Return the measures of a spec, and those of every evaluation whose name the spec gives to no other."""
    return _each_once([*measures_of(spec), *map(_measure, ALWAYS)])


def check_measures(loaded: LoadedSpec) -> None:
    """Ask every measure that a spec names whether it can judge the spec's pictures.

    Raises:
        SpecError: with the reasons of all that cannot.
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
    """The first of each role and name: reports go by them."""
    found: dict[tuple[Role, str], Measure] = {}
    for measure in measures:
        found.setdefault((measure.role, measure.name), measure)
    return list(found.values())
