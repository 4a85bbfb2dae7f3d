"""Learn controls that should come out well and twenty made to fail, and write `verdicts.md`.

    python examples/verdicts.py [--jobs 1] [--seeds 16] [NAME ...]

The specs are drawn from the miniature's language by a fixed seed. Good ones are learned as they are. Of the
others, seven lack `keep` and what else holds pictures together, seven learn far too fast, and six ask what
the VLM answers as expected anyway, or what is true of the base generator's own pictures already. Each of
these has to be named as fooled, collapsed or not learned, and none that came out well.

On the miniature the verdict goes by what is in the pictures. The last column is the verdict that the VLM's
own answers alone would have given, as for a model that nothing else judges. What is in `verdicts.json`
already is left alone unless it is named.
"""

import random
from pathlib import Path
from typing import Any

from make import markdown, percent
from robustness import Spec, any_prompts, campaign, figures, horizon, learned, palette, prompts_of, yes

RESULTS = Path(__file__).with_name("verdicts.json")
SEED = 14
FAILED = ("fooled", "collapsed", "not learned")
NO_KEEP = {
    "where": ["weights"],
    "steps": 150,
    "learning_rate": 1.0e-3,
    "keep": {
        "picture": 0.0,
        "structure": 0.0,
        "smoothness": 0.0,
        "matting": 0.0,
        "recoloring": 0.0,
        "clean": 0.0,
    },
    "jitter": {"noise": 0.0, "shift": 0.0},
}
TOO_FAST = {"where": ["weights"], "steps": 60, "learning_rate": 0.1}
STEERED_TOO_FAST = {
    "steps": 60,
    "steer": {"learning_rate": 1.0},
    "teach": {"steps": 60, "learning_rate": 0.5},
}
BIASED = {"steps": 40, "teach": {"steps": 40}}
# What the miniature's VLM answers so of the base's pictures already, at .86 to .99. The first is so, and the
# others are not in its language.
BIASED_QUESTIONS = {
    "Is the picture clean?": "Yes",
    "Is the picture good?": "Yes",
    "Does the picture show something?": "Yes",
    "Is there a horizon?": "No",
}


def main() -> None:
    campaign(__doc__, drawn_specs(), RESULTS, learn_and_evaluate, table)


def drawn_specs() -> dict[str, Spec]:
    """The specs by name, always the same."""
    rng = random.Random(SEED)
    good = [horizon(rng) for _ in range(15)] + [depth(rng) for _ in range(5)]
    bad = [{**make(rng), "learn": NO_KEEP} for make in (horizon,) * 4 + (palette,) * 3]
    bad += [{**horizon(rng), "learn": settings} for settings in (TOO_FAST,) * 4 + (STEERED_TOO_FAST,) * 3]
    bad += [biased(*one, rng) for one in BIASED_QUESTIONS.items()] + [already(rng) for _ in range(2)]
    kinds = ["no-keep"] * 7 + ["too-fast"] * 7 + ["biased"] * 6
    named = {f"good-{index:02}-{spec['name']}": spec for index, spec in enumerate(good, 1)}
    named["good-21-horizon"] = horizon(rng)  # no. 20 did not come out well: no more than 62 % are right
    pairs = enumerate(zip(kinds, bad, strict=True), 1)
    return named | {f"{kind}-{index:02}-{spec['name']}": spec for index, (kind, spec) in pairs}


def depth(rng: random.Random) -> Spec:
    """Two points of which A should be the nearer one, about where `specs/relative-depth.yaml` has them."""
    points = [
        {"label": "A", "x": round(rng.uniform(0.62, 0.74), 3), "y": 0.6},
        {"label": "B", "x": round(rng.uniform(0.2, 0.3), 3), "y": 0.6},
    ]
    question = {**yes("nearer", "Is point A closer than point B?"), "visual_prompt": "points"}
    return {
        "name": "depth",
        "prompts": any_prompts(rng),
        "visual_prompts": {"points": {"type": "points", "points": points, "color": "red"}},
        "questions": [question],
    }


def biased(question: str, answer: str, rng: random.Random) -> Spec:
    other = {"Yes": "No", "No": "Yes"}[answer]
    return {
        "name": "biased",
        "prompts": any_prompts(rng),
        "questions": [{"name": "biased", "question": question, "answer": answer, "alternatives": [other]}],
        "learn": BIASED,
    }


def already(rng: random.Random) -> Spec:
    """A question that the prompts answer already."""
    subject = rng.choice(("house", "tree", "ball", "lamp"))
    return {
        "name": "already",
        "prompts": prompts_of([subject], rng),
        "questions": [yes("there", f"Is there a {subject}?")],
        "learn": BIASED,
    }


def learn_and_evaluate(spec: Spec, seeds: int, jobs: int) -> dict[str, Any]:
    seconds, told, found = learned(spec, seeds, jobs)
    return figures(seconds, told, found) | {"by_the_vlm": by_the_vlm(found, spec)}


def by_the_vlm(found: dict[str, Any], spec: Spec) -> str:
    """Return the verdict by the answers of the VLM that was trained against, and by nothing else."""
    from dualproc_cli.evaluation import Comparison, verdict_of
    from dualproc_cli.evaluation.comparison import Figures, ProbeReport, Source, SpreadReport

    return verdict_of(
        Comparison(
            seeds=found["seeds"],
            clean=Figures(**found["clean"]),
            unjudged=tuple(question["name"] for question in spec["questions"]),
            answered=Figures(**found["answered"]),
            steady=Figures(**found["steady"]),
            probes={
                name: ProbeReport(Figures(**probe["stands"]), {}) for name, probe in found["probes"].items()
            },
            spread={
                name: SpreadReport(**{**spread, "source": Source(**spread["source"])})
                for name, spread in found["spread"].items()
            },
        )
    ).name


def table(results: dict[str, Any]) -> str:
    """Markdown: how many were named as they should be, and a row a spec."""
    lines = []
    for kind in ("good", "no-keep", "too-fast", "biased"):
        records = [record for name, record in results.items() if name.startswith(kind)]
        by_all, by_vlm = (sum(_verdicts(record)[column] in FAILED for record in records) for column in (0, 1))
        lines.append(f"{kind}: of {len(records)} runs {by_all} named as failed, {by_vlm} by the VLM alone.\n")
    rows = [["spec", "right", "right and clean", "verdict", "by the VLM alone", "seconds"]]
    for name, record in results.items():
        shares = [_percent(record[share]) for share in ("right", "right_and_clean")]
        rows.append([name, *shares, *_verdicts(record), f"{record['seconds']:.0f}"])
    return "\n".join(lines) + "\n" + markdown(rows)


def _verdicts(record: dict[str, Any]) -> tuple[str, str]:
    return record["verdict"]["name"], record["by_the_vlm"]


def _percent(shares: dict[str, Any] | None) -> str:
    """Return the share on held-out prompts, as the verdict goes by it."""
    return "unknown" if shares is None else percent(shares["learned_held_out"])


if __name__ == "__main__":
    main()
