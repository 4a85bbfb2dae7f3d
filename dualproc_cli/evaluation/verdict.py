"""What became of a control, by rules that are told with their numbers.

The rules are tried in this order, and the first that applies gives the verdict:

1. ``collapsed``: the pictures of different seeds have become alike.
2. ``learned``: enough pictures are right and clean, and not fewer than the base generator's.
3. ``learned, with artefacts``: enough are right, too few of them clean.
4. ``fooled``: the VLM that was trained against says yes, and who is independent of it says no.
5. ``not learned``.

They go by the held-out prompts, or by the training prompts of a spec without any. What varies from seed to
seed is compared on the training prompts.
"""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, TypeAlias

from dualproc_cli.evaluation.comparison import Comparison, Figures

Name = Literal["learned", "learned, with artefacts", "fooled", "collapsed", "not learned"]
Finding: TypeAlias = tuple[Name, str]  # and its reason

# Share of the pictures that has to be right, and right and clean: with less, failures are no exceptions to
# the eye. Of the base generator's own pictures 95 % are clean by definition: not all can be asked for.
ENOUGH = 0.8
# How much smaller than the base's the share of right and clean pictures may be: chance, with 64 pictures.
CHANCE = 0.05
# How far the VLM that was trained against may exceed what is independent of it. It errs by less than .05 on
# pictures of the miniature's world that are right, and takes back up to .06 of its answers when these are
# perturbed; more is chance, and the edge of a tolerance that it does not know.
GAP = 0.3
# Spread that must be left of the pixels of a prompt's pictures, learned over base. Scenes of the miniature's
# world with one palette and one horizon keep .58 to .80 of it, nights .61; gray blurs and stripes .14 to .18.
KEPT_PIXELS = 0.35
# The same of the median property that no goal fixes: the controls of `specs/` keep .98, that gray blur .26.
KEPT = 0.5


@dataclass(frozen=True)
class Verdict:
    """What became of a control.

    Attributes:
        name: the verdict.
        reason: the rule that applied, with its numbers and thresholds, in a line.
        figures: the numbers that the rules go by; None for those that are not known.
    """

    name: Name
    reason: str
    figures: dict[str, float | None]

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain data that `json.dumps` takes; unknown numbers are None."""
        return asdict(self)


def verdict_of(found: Comparison) -> Verdict:
    """Return the verdict on a control by what was found in its pictures."""
    figures = _figures(found)
    name, reason = _collapse(figures) or _success(figures) or _failure(figures)
    if found.unjudged:
        reason += f"; only the VLM that was trained against judges {', '.join(found.unjudged)}"
    return Verdict(name, reason, figures)


def _figures(found: Comparison) -> dict[str, float | None]:
    """Return the numbers that the rules go by.

    ``confirmed`` is the share of pictures that are right by whatever is independent of the VLM that was
    trained against. For questions that nothing independent judges, its answers about perturbed pictures have
    to do.
    """
    column = "learned" if found.clean.learned_held_out is None else "learned_held_out"

    def of(figures: Figures | None, column: str = column) -> float | None:
        return None if figures is None else getattr(figures, column)

    steady = of(found.steady) if found.unjudged else None
    right, right_and_clean = of(found.right), of(found.right_and_clean)
    clean = of(found.clean)
    pixels = found.spread.get("diversity")
    kept = [
        report.ratio
        for name, report in found.spread.items()
        if name != "diversity" and not report.fixed and report.ratio is not None
    ]
    return {
        "confirmed": _least(right, steady),
        "clean": clean,
        "confirmed_and_clean": _least(clean if right_and_clean is None else right_and_clean, steady),
        "base_right_and_clean": of(found.right_and_clean, column.replace("learned", "base")),
        "answered": of(found.answered),
        "spread_kept": median(kept) if kept else None,
        "pixel_spread_kept": pixels.ratio if pixels else None,
    }


def _collapse(figures: dict[str, float | None]) -> Finding | None:
    pixels, kept = figures["pixel_spread_kept"], figures["spread_kept"]
    if pixels is not None and pixels < KEPT_PIXELS:
        return "collapsed", f"{pixels:.2f} of the spread of the pixels is kept, less than {KEPT_PIXELS:.2f}"
    if kept is not None and kept < KEPT:
        what = "of the spread of what the control need not change"
        return "collapsed", f"{kept:.2f} {what} is kept, less than {KEPT:.2f}"
    return None


def _success(figures: dict[str, float | None]) -> Finding | None:
    right, both = figures["confirmed"] or 0.0, figures["confirmed_and_clean"] or 0.0
    base = figures["base_right_and_clean"]
    if right < ENOUGH:
        return None
    compared = "" if base is None else f", the base's {base:.0%}"
    wanted = max(ENOUGH, (base or 0.0) - CHANCE)
    if both >= wanted:
        return "learned", f"{both:.0%} right and clean, at least {wanted:.0%}{compared}"
    return (
        "learned, with artefacts",
        f"{right:.0%} right, at least {ENOUGH:.0%}, but {both:.0%} right and clean, "
        f"less than {wanted:.0%}{compared}",
    )


def _failure(figures: dict[str, float | None]) -> Finding:
    right, answered = figures["confirmed"] or 0.0, figures["answered"] or 0.0
    if answered - right >= GAP and answered >= ENOUGH:
        return (
            "fooled",
            f"the VLM that was trained against answers as expected for {answered:.0%}, but {right:.0%} are "
            f"right, at least {GAP:.0%} fewer",
        )
    return "not learned", f"{right:.0%} right, less than {ENOUGH:.0%}"


def _least(*shares: float | None) -> float | None:
    """Return the smallest of the shares that are known."""
    return min((share for share in shares if share is not None), default=None)
