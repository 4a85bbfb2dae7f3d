"""What was tried to find out whether the VLM was fooled, and what came of it, in words."""

from dataclasses import dataclass
from typing import Literal

from dualproc_cli.evaluation.comparison import Comparison, Figures
from dualproc_cli.evaluation.probes import BLANK, HELD_OUT_WORDINGS, OPPOSITE_WORDINGS, PERTURBED
from dualproc_cli.evaluation.tables import number, percent
from dualproc_cli.evaluation.verdict import ENOUGH, GAP, KEPT, KEPT_PIXELS, Verdict

Mark = Literal["holds", "gives way", "not tried", "nothing to try"]

PROBES = {
    PERTURBED: ("Small perturbations", "all of the next four, whichever is the worst for a picture"),
    "shifted": ("Shifted", "by a 64th of the picture"),
    "noisy": ("Noise", "of a standard deviation of 0.02"),
    "blurred": ("Blur", "over 3 x 3 pixels"),
    "resized": ("Three quarters of the size and back", "as when a page shows a picture smaller"),
    "JPEG 75": ("JPEG 75", "saved as most programs do"),
    "half size": ("Half size and back", "fine patterns do not survive it"),
    HELD_OUT_WORDINGS: ("Wordings never trained on", "the same question, asked in other words"),
    OPPOSITE_WORDINGS: ("The opposite question", "the answer has to turn"),
    BLANK: ("Against a blank picture", "less what the VLM says of a gray picture anyway"),
}
NOT_TRIED = {
    "JPEG 75": "dualproc report or evaluate --full tries it",
    "half size": "dualproc report or evaluate --full tries it",
    HELD_OUT_WORDINGS: "evaluate and report ask questions[].held_out_paraphrases of the spec",
    OPPOSITE_WORDINGS: "evaluate and report ask questions[].opposites of the spec",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        name: what was tried.
        means: what that is, or how to try it.
        base: figure of the base generator's pictures.
        learned: figure of the control's pictures, of held-out prompts if there are any.
        mark: what came of it.
    """

    name: str
    means: str
    base: str
    learned: str
    mark: Mark


def findings(found: Comparison, verdict: Verdict) -> list[Finding]:
    """Return everything that could be tried, the most independent of the VLM first."""
    independent = "whether pictures reach the goal, by " + (
        " and ".join(found.right_by) or "what is independent"
    )
    rows = [
        _share(
            "Right", independent, found, found.right, "name evaluate.measures or evaluate.vlm in the spec"
        ),
        _kept("Variety of the pixels", found, verdict, "pixel_spread_kept", KEPT_PIXELS),
        _kept("Variety of what need not change", found, verdict, "spread_kept", KEPT),
    ]
    for name, (title, means) in PROBES.items():
        stands = found.probes[name].stands if name in found.probes else None
        rows.append(_share(title, means, found, stands, NOT_TRIED.get(name, "")))
    return rows


def _share(name: str, means: str, found: Comparison, figures: Figures | None, otherwise: str) -> Finding:
    """Return what became of the pictures to which the VLM gives the expected answers."""
    (_, answered), (base, learned) = _pair(found.answered), _pair(figures or Figures())
    if learned is None or answered is None:
        return Finding(name, f"{means}; {otherwise}" if otherwise else means, "", "", "not tried")
    mark: Mark = "gives way" if answered - learned >= GAP else "holds"
    if answered < 1 - ENOUGH:
        mark = "nothing to try"  # hardly a picture is answered as expected
    return Finding(name, means, percent(base), percent(learned), mark)


def _kept(name: str, found: Comparison, verdict: Verdict, figure: str, least: float) -> Finding:
    kept = verdict.figures[figure]
    means = f"the spread over the seeds, as a part of the base's; less than {least:.2f} is a collapse"
    if kept is None:
        return Finding(name, means, "", "", "not tried")
    return Finding(name, means, "1.000", number(kept), "gives way" if kept < least else "holds")


def _pair(figures: Figures) -> tuple[float | None, float | None]:
    """Return the figures of base and control that a verdict goes by."""
    if figures.learned_held_out is None:
        return figures.base, figures.learned
    return figures.base_held_out, figures.learned_held_out
