"""Evaluated controls for tests of reports, without any model."""

from pathlib import Path

import torch

from dualproc_cli.bundle import Outcome, Revisions
from dualproc_cli.evaluation import Album, Comparison, verdict_of
from dualproc_cli.evaluation.comparison import (
    ArtefactReport,
    Figures,
    GoalReport,
    ProbeReport,
    Source,
    SpreadReport,
    Strength,
)
from dualproc_cli.metrics import StepMetrics, Validation
from dualproc_cli.report import Evaluated
from dualproc_cli.spec import load_spec

SOURCE = Source("rows inside", "the miniature's reader", "0" * 40, "Apache-2.0")
SPEC = Path(__file__).parent.parent / "specs" / "horizon-position.yaml"


def figures(base: float = 0.1, learned: float = 0.9) -> Figures:
    return Figures(base, learned, base, learned)


def comparison(right: float = 0.9, question: str = "at-the-line") -> Comparison:
    """What a full evaluation finds in a control with that share of right pictures."""
    answered = figures(0.05, 0.95)
    probes = ("perturbed", "shifted", "noisy", "blurred", "resized", "opposite wordings", "blank picture",
              "JPEG 75", "half size")  # fmt: skip
    return Comparison(
        seeds=8,
        right=figures(0.1, right),
        clean=figures(0.95, 0.9),
        right_and_clean=figures(0.1, right - 0.05),
        right_by=("measures",),
        clean_by=("residual",),
        answered=answered,
        steady=figures(0.05, right),
        questions={question: figures(0.05, 0.93)},
        perturbed={question: figures(0.04, 0.88)},
        probes={name: ProbeReport(figures(0.05, right), {question: figures()}) for name in probes},
        blank={question: 0.02},
        measures={"horizon": GoalReport(figures(0.1, right), figures(-9, 1), figures(1, 1), SOURCE)},
        artefacts={"residual": ArtefactReport(figures(0.02, 0.03), 1.5, 1.5, figures(1, 1), SOURCE)},
        spread={"diversity": SpreadReport(0.2, 0.16, 0.8, False, SOURCE)},
        strengths=tuple(
            Strength(scale, scale * right / 1.25, 0.95, scale * right / 1.3, {question: scale / 1.3})
            for scale in (0, 0.25, 0.5, 0.75, 1.0, 1.25)
        ),
    )


def metrics(question: str = "at-the-line", steps: int = 60) -> list[StepMetrics]:
    """Steps of steering, and as many of teaching."""
    found = []
    for step in range(1, 2 * steps + 1):
        steers = step <= steps
        share = step / steps if steers else step / steps - 1
        answers = {question: share} if steers else {}
        found.append(
            StepMetrics(
                step=step,
                phase="steer" if steers else "teach",
                loss=(4 if steers else 1) * (1.05 - share),
                keep=0.06 * share if steers else 0.0,
                losses=answers,
                probabilities=answers,
                gradient_norm=1.0,
                learning_rate=1e-3,
            )
        )
    return found


def album(size: int = 64, seed: int = 0) -> Album:
    """Pictures of two prompts, one of them held out: vertical ramps of a random colour."""
    rng, found = torch.Generator().manual_seed(seed), Album()
    ramp = torch.linspace(0, 1, size)[:, None].expand(3, size, size)
    for prompt, held_out in (("a house in a field", False), ("a ball in the snow", True)):
        base = torch.stack([ramp * torch.rand((3, 1, 1), generator=rng) for _ in range(4)])
        found.add(prompt, held_out, base, base.flip(-2))
    return found


def evaluated(label: str = "horizon-position", **changes) -> Evaluated:
    """An evaluated control of the miniature, with some of its attributes changed."""
    loaded, found = load_spec(SPEC), changes.pop("comparison", comparison())
    values = {
        "label": label,
        "spec": loaded.spec,
        "text": loaded.text,
        "overrides": {"learn.steps": 60},
        "folder": loaded.folder,
        "metrics": metrics(),
        "validations": [Validation(step=50, phase="steer", right=0.7, clean=0.9, right_and_clean=0.6)],
        "outcome": Outcome(reason="steps", step=120, seconds=61.5),
        "revisions": Revisions(generator="a" * 40, vlm="b" * 40, evaluate_vlm=None),
        "versions": {"dualproc": "0.1", "torch": "2.15"},
        "digest": "d" * 64,
        "comparison": found,
        "verdict": verdict_of(found),
        "album": album(),
    }
    return Evaluated(**{**values, **changes})
