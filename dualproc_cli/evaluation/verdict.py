"""What became of a control, by rules that are told with their numbers.

The rules are tried in this order, and the first that applies gives the verdict:

1. ``collapsed``: the pictures of different seeds have become alike.
2. ``not learned``: the base generator's own pictures are as often right, so there was nothing to learn.
3. ``learned``: enough pictures are right and clean, and not fewer than the base generator's.
4. ``learned, with artefacts``: enough are right, too few of them clean.
5. ``fooled``: the VLM that was trained against says yes, and who is independent of it says no.
6. ``not learned``.

Where nothing independent of the VLM judges a question, a picture counts as right if the VLM's answer stands:
under small perturbations, in wordings that were not learned on, and against what it says of a blank picture.

They go by the held-out prompts, or by the training prompts of a spec without any. What varies from seed to
seed is compared on the training prompts.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, TypeAlias

from dualproc_cli.evaluation.comparison import Comparison, Figures
from dualproc_cli.evaluation.probes import BLANK, HELD_OUT_WORDINGS, OPPOSITE_WORDINGS, PERTURBED, PROBES

Name = Literal["learned", "learned, with artefacts", "fooled", "collapsed", "not learned"]
_IN_WORDS = {  # after a share of the pictures
    PERTURBED: "under small perturbations",
    HELD_OUT_WORDINGS: "in wordings that were not learned on",
    OPPOSITE_WORDINGS: "when asked for the opposite",
    BLANK: "beyond what it says of a blank picture",
}
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
# How many more pictures than the base's have to be right. A control that gains less may as well be left out:
# what its questions ask for is so already, or the VLM answers as expected whatever it is shown.
GAIN = 0.1
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
    weakest = _weakest(found)
    name, reason = _collapse(figures) or _no_gain(figures) or _success(figures) or _failure(figures, weakest)
    if found.unjudged:
        reason += f"; only the VLM that was trained against judges {', '.join(found.unjudged)}"
    return Verdict(name, reason, figures)


def _figures(found: Comparison) -> dict[str, float | None]:
    """Return the numbers that the rules go by.

    ``confirmed`` is the share of pictures that are right by whatever is independent of the VLM that was
    trained against. For questions that nothing independent judges, its answers have to do, if they stand.
    """
    of = _of(found)
    base = _of(found, "base")
    steady, base_steady = (of(found.steady), base(found.steady)) if found.unjudged else (None, None)
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
        "base_confirmed": _least(base(found.right), base_steady),
        "base_right_and_clean": base(found.right_and_clean),
        "answered": of(found.answered),
        **{name: of(probe.stands) for name, probe in found.probes.items() if name in PROBES},
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


def _no_gain(figures: dict[str, float | None]) -> Finding | None:
    right, base = figures["confirmed"], figures["base_confirmed"]
    if right is None or base is None or right < ENOUGH or right - base >= GAIN:
        return None
    return (
        "not learned",
        f"{right:.0%} right, and of the base's own pictures {base:.0%}: less than {GAIN:.0%} were gained",
    )


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


def _failure(figures: dict[str, float | None], weakest: str) -> Finding:
    right, answered = figures["confirmed"] or 0.0, figures["answered"] or 0.0
    if answered - right >= GAP and answered >= ENOUGH:
        return (
            "fooled",
            f"the VLM that was trained against answers as expected for {answered:.0%}, but {right:.0%} "
            f"{weakest}, at least {GAP:.0%} fewer",
        )
    return "not learned", f"{right:.0%} right, less than {ENOUGH:.0%}"


def _weakest(found: Comparison) -> str:
    """Return in words what the fewest pictures fulfil, of all that says whether they are right."""
    of = _of(found)
    shares = {"are right": of(found.right)}
    if found.unjudged:
        shares |= {
            _IN_WORDS[name]: of(probe.stands) for name, probe in found.probes.items() if name in PROBES
        }
    known = {words: share for words, share in shares.items() if share is not None}
    return min(known, key=lambda words: known[words], default="stay so when that is tried")


def _of(found: Comparison, side: str = "learned") -> Callable[[Figures | None], float | None]:
    """Return what takes the figure of the base's or the learned pictures that the verdict goes by."""
    column = side if found.clean.learned_held_out is None else f"{side}_held_out"
    return lambda figures: None if figures is None else getattr(figures, column)


def _least(*shares: float | None) -> float | None:
    """Return the smallest of the shares that are known."""
    return min((share for share in shares if share is not None), default=None)
