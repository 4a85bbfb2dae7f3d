"""The curves of a report: what was measured while learning, and the strengths of the adapter."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter, PercentFormatter

from dualproc_cli.evaluation.comparison import Strength
from dualproc_cli.metrics import StepMetrics, Validation
from dualproc_cli.report.svg import INK, styled, to_svg

SIZE = (5.0, 3.1)  # inches: a phone shows it as it is
POINTS = 240  # of a curve at most; beyond, means of neighbours are drawn
# Okabe and Ito's colours, told apart by all eyes, that stand out from white and from black.
COLORS = ("#2f86c8", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9a7d0a", "#7f7f7f")
LEAST = 1e-4  # of a loss that is drawn: one that starts at 0 would take most of the height
OTHER = "#7f7f7f"


def answers_plot(metrics: Sequence[StepMetrics], validations: Sequence[Validation], name: str) -> Markup:
    """Draw P(answer) of every question over the steps, and what the validations found."""
    with styled():
        figure, axes = _axes("step", "P(answer), share")
        _phases(axes, metrics)
        names = dict.fromkeys(question for entry in metrics for question in entry.probabilities)
        for question, color in zip(names, _colors(), strict=False):
            for number, part in enumerate(_parts(metrics)):
                asked = [
                    (one.step, one.probabilities[question]) for one in part if question in one.probabilities
                ]
                if asked:
                    axes.plot(*_thinned(asked), color=color, label=question if number == 0 else None)
        shares = {"right and clean": [(one.step, one.right_and_clean) for one in validations]}
        shares["clean"] = [(one.step, one.clean) for one in validations]
        for (label, points), marker in zip(shares.items(), "os", strict=True):
            known = [(step, share) for step, share in points if share is not None]
            if known:
                axes.plot(*zip(*known, strict=True), marker, color=OTHER, fillstyle="none", label=label)
        axes.set_ylim(-0.03, 1.03)
        return _finished(figure, axes, name, "P(answer) of each question over the steps of learning")


def losses_plot(metrics: Sequence[StepMetrics], name: str) -> Markup:
    """Draw the loss, and what staying close to the base generator costs, over the steps."""
    with styled():
        figure, axes = _axes("step", "loss, on a logarithmic scale")
        _phases(axes, metrics)
        for (label, read), color in zip(
            {"loss": lambda one: one.loss, "keep": lambda one: one.keep}.items(), COLORS, strict=False
        ):
            shown = False
            for part in _parts(metrics):
                points = [(one.step, read(one)) for one in part if read(one) > LEAST]
                if points:
                    axes.plot(*_thinned(points), color=color, label=None if shown else label)
                    shown = True
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return _finished(figure, axes, name, "loss and cost of keeping over the steps of learning")


def strengths_plot(strengths: Sequence[Strength], name: str) -> Markup:
    """Draw the shares of right and clean pictures, and P(answer), over the strength of the adapter."""
    with styled():
        figure, axes = _axes("strength of the adapter", "share, P(answer)")
        scales = [one.scale for one in strengths]
        curves: dict[str, list[float | None]] = {
            "right": [one.right for one in strengths],
            "clean": [one.clean for one in strengths],
            "right and clean": [one.right_and_clean for one in strengths],
        }
        for (label, shares), color in zip(curves.items(), COLORS, strict=False):
            if shares[0] is not None:
                axes.plot(scales, shares, "o-", markersize=4, color=color, label=label)  # type: ignore[arg-type]
        for question, color in zip(strengths[0].questions, _colors(3), strict=False):
            values = [one.questions[question] for one in strengths]
            axes.plot(scales, values, "--", color=color, label=f"P({question})")
        axes.set_xticks(scales)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return _finished(figure, axes, name, "right and clean pictures over the strength of the adapter")


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=INK, alpha=0.12)
    return figure, axes


def _phases(axes: Axes, metrics: Sequence[StepMetrics]) -> None:
    """Shade every other phase, and write its name above it."""
    for number, part in enumerate(_parts(metrics)):
        first, last = part[0].step - 0.5, part[-1].step + 0.5
        if number % 2:
            axes.axvspan(first, last, color=INK, alpha=0.07, linewidth=0)
        axes.annotate(
            part[0].phase, ((first + last) / 2, 1.01), xycoords=("data", "axes fraction"), ha="center"
        )


def _parts(metrics: Sequence[StepMetrics]) -> list[list[StepMetrics]]:
    """Return the steps of each phase."""
    return [list(part) for _, part in groupby(metrics, key=lambda entry: entry.phase)]


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """Return abscissae and ordinates of at most `POINTS` points, means of neighbours."""
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return (
        [sum(step for step, _ in group) / len(group) for group in groups],
        [sum(value for _, value in group) / len(group) for group in groups],
    )


def _colors(start: int = 0) -> Iterator[str]:
    """Yield colours from ``start`` on, again and again."""
    while True:
        yield from COLORS[start:]
        start = 0


def _finished(figure: Figure, axes: Axes, name: str, description: str) -> Markup:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return to_svg(figure, name, description)
