"""Learn thirty random specs, none of them tuned, and write the table `robustness.md`.

    python examples/robustness.py [--jobs 1] [--seeds 16] [NAME ...]

The specs are drawn from the language of the miniature by a fixed seed, without a `learn` section: horizons
anywhere from .25 to .75, palettes of any three colours, open answers, and pairs of questions. What was
learned is judged on held-out seeds and prompts by independent measures. A spec that is in `robustness.json`
already is left alone unless it is named.
"""

import argparse
import colorsys
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from make import markdown

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "robustness.json", HERE / "robustness.md"
SEED = 2026
SUBJECTS, PLACES = ("house", "tree", "ball", "lamp"), ("in a field", "in winter", "at night", "by the sea")

Spec = dict[str, Any]


def main() -> None:
    campaign(__doc__, random_specs(), RESULTS, learn_and_evaluate, table)


def campaign(
    doc: str,
    specs: dict[str, Spec],
    default: Path,
    learn_one: Callable[[Spec, int, int], dict[str, Any]],
    table_of: Callable[[dict[str, Any]], str],
) -> None:
    """Learn what the command line names, or what has no results yet, and write results and table."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="specs to learn again")
    parser.add_argument(
        "--jobs", type=int, default=1, help="specs learned at a time, one thread each if more"
    )
    parser.add_argument("--seeds", type=int, default=16, help="held-out seeds per prompt")
    parser.add_argument("--results", type=Path, default=default, help="where the figures are kept")
    options = parser.parse_args()
    path = options.results
    results = json.loads(path.read_text()) if path.exists() else {}
    chosen = options.names or [name for name in specs if name not in results]

    def learn(name: str) -> None:
        results[name] = learn_one(specs[name], options.seeds, options.jobs)
        path.write_text(json.dumps(dict(sorted(results.items())), indent=2) + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(learn, chosen))
    path.with_suffix(".md").write_text(table_of(dict(sorted(results.items()))))


def random_specs() -> dict[str, Spec]:
    """Thirty specs by name, always the same."""
    rng = random.Random(SEED)
    made = [horizon(rng) for _ in range(8)] + [palette(rng) for _ in range(10)]
    made += [open_answer(kind, rng) for kind in ("night", "day", "winter", "summer", "one", "two")]
    made += [pair(rng, index) for index in range(6)]
    return {f"{index + 1:02}-{spec['name']}": spec for index, spec in enumerate(made)}


def horizon(rng: random.Random) -> Spec:
    line, question = horizon_at(rng)
    return {
        "name": f"horizon-{round(100 * line['position'])}",
        "prompts": any_prompts(rng),
        "visual_prompts": {"target": line},
        "questions": [question],
    }


def horizon_at(rng: random.Random) -> tuple[Spec, Spec]:
    line = {"type": "line", "orientation": "horizontal", "position": round(rng.uniform(0.25, 0.75), 3)}
    return {**line, "thickness": 0.03, "color": "red"}, {
        **yes("horizon", "Is the horizon at the red line?"),
        "visual_prompt": "target",
    }


def palette(rng: random.Random) -> Spec:
    colors, question = palette_of(rng)
    return {
        "name": "palette",
        "prompts": any_prompts(rng),
        "visual_prompts": {"brand": colors},
        "questions": [question],
    }


def palette_of(rng: random.Random) -> tuple[Spec, Spec]:
    """Three colours that the eye tells apart: any hues, medium to light, dull to vivid."""
    hues = [(rng.random() + index / 3) % 1 for index in range(3)]
    colors = [colorsys.hls_to_rgb(hue, rng.uniform(0.35, 0.8), rng.uniform(0.3, 0.85)) for hue in hues]
    named = ["#" + "".join(f"{round(255 * value):02x}" for value in color) for color in colors]
    return {"type": "palette", "colors": named, "edge": "bottom", "size": 0.12}, {
        **yes("palette", "Do the colors match the palette?"),
        "visual_prompt": "brand",
    }


def open_answer(answer: str, rng: random.Random) -> Spec:
    """A question that is not answered by Yes or No, and the other answer that it has."""
    question, other = {
        "night": ("What time is it?", "day"),
        "day": ("What time is it?", "night"),
        "winter": ("What season is it?", "summer"),
        "summer": ("What season is it?", "winter"),
        "one": ("How many subjects are there?", "two"),
        "two": ("How many subjects are there?", "one"),
    }[answer]
    fields = [f"a {subject} in a field" for subject in SUBJECTS]
    prompts = {
        "day": [f"a {subject} at night" for subject in SUBJECTS],
        "summer": [f"a {subject} in winter" for subject in SUBJECTS],
        "one": ["a house in front of a tree", "a ball in front of a lamp", "a tree in front of a house",
                "a lamp in front of a ball"],
    }.get(answer, fields)  # fmt: skip
    held_out = prompts[rng.randrange(len(prompts))]
    return {
        "name": answer,
        "prompts": {"train": [one for one in prompts if one != held_out], "held_out": [held_out]},
        "questions": [{"name": "open", "question": question, "answer": answer, "alternatives": [other]}],
    }


def pair(rng: random.Random, index: int) -> Spec:
    """Two questions at once: a horizon with a palette, or with the place of the subject."""
    line, question = horizon_at(rng)
    if index % 2 == 0:
        other, asked = palette_of(rng)
        prompts, second = any_prompts(rng), "brand"
    else:
        subject = rng.choice(SUBJECTS)
        other = {"type": "line", "orientation": "vertical", "position": round(rng.uniform(0.3, 0.7), 3),
                 "thickness": 0.03, "color": "red"}  # fmt: skip
        asked = {**yes("place", f"Is the {subject} on the red line?"), "visual_prompt": "third"}
        prompts, second = prompts_of([subject], rng), "third"
    return {
        "name": f"horizon-and-{asked['name']}",
        "prompts": prompts,
        "visual_prompts": {"target": line, second: other},
        "questions": [question, asked],
    }


def any_prompts(rng: random.Random) -> Spec:
    return prompts_of(rng.sample(SUBJECTS, 3), rng)


def prompts_of(subjects: list[str], rng: random.Random) -> Spec:
    """Three prompts to train on and one held out, of some of the subjects."""
    every = [f"a {subject} {place}" for subject in subjects for place in PLACES]
    chosen = rng.sample(every, 4)
    return {"train": chosen[:3], "held_out": chosen[3:]}


def yes(name: str, question: str) -> Spec:
    return {"name": name, "question": question, "answer": "Yes", "alternatives": ["No"]}


def learn_and_evaluate(spec: Spec, seeds: int, jobs: int) -> dict[str, Any]:
    """Run both commands as a user would, and return the figures of the table."""
    return figures(*learned(spec, seeds, jobs))


def learned(spec: Spec, seeds: int, jobs: int) -> tuple[float, str, dict[str, Any]]:
    """Return the seconds that `learn` takes, the verdict that it tells, and what `evaluate` finds."""
    threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    environment = {**os.environ, **threads}
    with tempfile.TemporaryDirectory() as scratch:
        path, bundle = Path(scratch) / "spec.yaml", Path(scratch) / "bundle"
        path.write_text(yaml.safe_dump({"version": 1, **spec}, sort_keys=False))
        started = time.perf_counter()
        run("learn", str(path), "-o", str(bundle), environment=environment)
        seconds = round(time.perf_counter() - started, 1)
        told = json.loads((bundle / "bundle.json").read_text())["verdict"]["name"]
        evaluation = run("evaluate", str(bundle), "--seeds", str(seeds), "--json", environment=environment)
    return seconds, told, json.loads(evaluation)


def figures(seconds: float, told: str, found: dict[str, Any]) -> dict[str, Any]:
    shares = {name: found[name] for name in ("right", "clean", "right_and_clean")}
    verdict = {key: found["verdict"][key] for key in ("name", "reason")}
    return {"seconds": seconds, "told": told, "verdict": verdict, "seeds": found["seeds"], **shares}


def run(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "dualproc_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def table(results: dict[str, Any]) -> str:
    """Markdown: a row a spec, all pictures of held-out seeds, and the median."""
    rows = [
        ["spec", "base", "right", "clean", "right and clean", "on held-out prompts", "verdict", "seconds"]
    ]
    both = [record["right_and_clean"]["learned"] for record in results.values()]
    for name, record in results.items():
        shares = [
            record["right_and_clean"]["base"],
            *(record[share]["learned"] for share in ("right", "clean", "right_and_clean")),
            record["right_and_clean"]["learned_held_out"],
        ]
        cells = [f"{100 * share:.0f} %" for share in shares]
        rows.append([name, *cells, record["verdict"]["name"], f"{record['seconds']:.0f}"])
    return f"Median right and clean: {100 * median(both):.0f} %, of {len(both)} specs.\n\n{markdown(rows)}"


if __name__ == "__main__":
    main()
