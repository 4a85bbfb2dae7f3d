"""The results of an evaluation as rows of text, for the terminal and for reports."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dualproc_cli.evaluation.comparison import Comparison, Figures, Source
from dualproc_cli.evaluation.strengths import best_strength
from dualproc_cli.evaluation.verdict import Verdict

COLUMNS = ("base", "learned", "held out: base", "learned")  # the prompts are held out
RATIOS = (*COLUMNS[:2], "ratio", *COLUMNS[2:], "ratio")


@dataclass(frozen=True)
class Rows:
    """A table of figures.

    Attributes:
        title: what is in it.
        columns: of the figures.
        rows: a label and its cells, one a column; a row without cells is a heading of those below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def add(self, title: str, rows: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Add rows under a heading; without rows, add no heading."""
        if found := list(rows):
            self.rows.extend([(title, ()), *found])


def tables_of(result: Comparison) -> Iterator[Rows]:
    """Yield the tables of an evaluation; those that would be empty are left out."""
    found = (_pictures, _goals, _probes, _artefacts, _spread, _strengths)
    return (table for table in (make(result) for make in found) if table.rows)


def compared(found: Iterable[tuple[str, Comparison, Verdict]]) -> Rows:
    """Return a row for each of several bundles, by its label, on held-out prompts if there are any."""
    columns = ("verdict", "base", "right", "clean", "right and clean", "held out", "answered", "spread kept")
    table = Rows("bundle", columns)
    for label, result, verdict in found:
        both = result.right_and_clean or Figures()
        shares = (
            both.base,
            (result.right or Figures()).learned,
            result.clean.learned,
            both.learned,
            both.learned_held_out,
            result.answered.learned,
        )
        cells = (verdict.name, *map(percent, shares), number(verdict.figures["spread_kept"]))
        table.rows.append((label, cells))
    return table


def rules(result: Comparison) -> list[str]:
    """Return what decided whether pictures are right and clean."""
    who = " and ".join(result.right_by)
    lines = [f"right by {who}" if who else "right is unknown: nothing but the VLM trained against judges it"]
    if who and result.unjudged:
        lines[0] += f", except for {', '.join(result.unjudged)}"
    if result.automatic:
        lines.append(f"measures chosen automatically: {', '.join(result.automatic)}")
    return [*lines, f"clean by {', '.join(result.clean_by)}: the range of 95 % of the base's pictures"]


def models(result: Comparison) -> list[str]:
    """Return a line for each model that measures judged by, with its licence."""
    found = (result.measures, result.artefacts, result.spread)
    sources = [report.source for reports in found for report in reports.values()]
    return list(dict.fromkeys(_judged_by(source) for source in sources if source.model))


def number(value: float | None) -> str:
    """Return a number with three decimals, an unknown one as nothing."""
    return "" if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Return a share in percent, an unknown one as nothing."""
    return "" if share is None else f"{share:.0%}"


def _pictures(result: Comparison) -> Rows:
    shares = {"right": result.right, "clean": result.clean, "right and clean": result.right_and_clean}
    return Rows("pictures", COLUMNS, [(name, _shares(one)) for name, one in shares.items() if one])


def _goals(result: Comparison) -> Rows:
    table = Rows("", (*COLUMNS, "unit"))
    measures = [(_labelled(name, goal.judged), goal) for name, goal in result.measures.items()]
    table.add(
        "measured success", ((name, (*_numbers(one.success), "")) for name, one in measures if one.success)
    )
    # A value without a unit repeats the success.
    values = ((name, one) for name, one in measures if one.source.unit)
    table.add("measured value", ((name, (*_numbers(one.value), one.source.unit)) for name, one in values))
    for title, answers in (
        ("P(answer)", result.questions),
        ("P(answer), perturbed", result.perturbed),
        ("P(answer), second VLM", result.second_vlm),
    ):
        table.add(title, ((name, (*_numbers(one), "")) for name, one in answers.items()))
    return table


def _probes(result: Comparison) -> Rows:
    """Return what share of the pictures keeps all expected answers, under each probe."""
    table = Rows("answered as expected", COLUMNS, [("as they are", _shares(result.answered))])
    table.rows.extend((name, _shares(probe.stands)) for name, probe in result.probes.items())
    return table if result.probes else Rows("", ())


def _artefacts(result: Comparison) -> Rows:
    table = Rows("artefacts", (*RATIOS, "unit"))
    for name, found in result.artefacts.items():
        base, learned, base_held_out, learned_held_out = found.value.values()
        cells = (base, learned, found.ratio, base_held_out, learned_held_out, found.ratio_held_out)
        table.rows.append((_labelled(name, found.judged), (*map(number, cells), found.source.unit)))
    return table


def _spread(result: Comparison) -> Rows:
    table = Rows("spread over the seeds of a prompt", ("base", "learned", "ratio"))
    for name, spread in result.spread.items():
        label = f"{name}, a goal" if spread.fixed else name
        table.rows.append((label, tuple(map(number, (spread.base, spread.learned, spread.ratio)))))
    return table


def _strengths(result: Comparison) -> Rows:
    questions = tuple(result.strengths[0].questions) if result.strengths else ()
    table = Rows("strength", ("right", "clean", "right and clean", *(f"P({name})" for name in questions)))
    for one in result.strengths:
        best = ", the best" if one is best_strength(result.strengths) else ""
        shares = map(percent, (one.right, one.clean, one.right_and_clean))
        table.rows.append((f"{one.scale:g}{best}", (*shares, *map(number, one.questions.values()))))
    return table


def _shares(figures: Figures) -> tuple[str, ...]:
    return tuple(map(percent, figures.values()))


def _numbers(figures: Figures) -> tuple[str, ...]:
    return tuple(map(number, figures.values()))


def _labelled(name: str, judged: Figures) -> str:
    """Return the name, with the share of pictures that were judged if it is below 1."""
    least = min(share for share in judged.values() if share is not None)
    return name if least == 1 else f"{name}, {least:.0%} judged"


def _judged_by(source: Source) -> str:
    revision = f" at {source.revision[:12]}" if source.revision else ""
    licence = f" ({source.licence})" if source.licence else ""
    return f"measured by {source.model}{revision}{licence}"
