"""Learn and evaluate every control of `specs/`, and write the table, pictures and reports of this folder.

    python examples/make.py [--seeds 64] [NAME ...]

A control that is in `results.json` already is left alone unless it is named.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPECS = HERE.parent / "specs"
RESULTS = HERE / "results.json"
TABLE = HERE / "results.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="controls to learn again")
    parser.add_argument("--seeds", type=int, default=64, help="held-out seeds, shared by a control's prompts")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for spec in sorted(SPECS.glob("*.yaml")):
        if spec.stem in options.names or (not options.names and spec.stem not in results):
            results[spec.stem] = learn_and_evaluate(spec, options.seeds)
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    TABLE.write_text(table(results))


def learn_and_evaluate(spec: Path, seeds: int) -> dict:
    """Run the commands as a user would; returns their figures, and keeps pictures, preview and report."""
    pictures = HERE / spec.stem
    pictures.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / spec.stem
        (pictures / "preview.txt").write_text(run("preview", str(spec), "-o", "preview", folder=scratch))
        shutil.copy(Path(scratch) / "preview" / "preview.png", pictures)
        started = time.perf_counter()
        run("learn", str(spec), "-o", str(bundle))
        seconds = time.perf_counter() - started
        record = json.loads(run("evaluate", str(bundle), "--seeds", str(seeds), "--json"))
        run("report", str(bundle), "-o", str(pictures / "report.html"))
        shutil.copy(bundle / "samples" / "before-after.png", pictures)
    return {"seconds": round(seconds, 1), **figures(record)}


KEPT = ("verdict", "seeds", "right", "clean", "right_and_clean", "questions", "perturbed", "second_vlm")


def figures(record: dict) -> dict:
    """What `results.json` keeps of an evaluation: its numbers, without units, models and shares judged."""
    return {
        **{key: record[key] for key in KEPT},
        "measures": {
            name: found["success"] for name, found in record["measures"].items() if found["success"]
        },
        "spread": {name: found["ratio"] for name, found in record["spread"].items()},
        "artefacts": {name: found["value"] for name, found in record["artefacts"].items()},
    }


def run(*arguments: str, folder: str | None = None) -> str:
    """The output of a dualproc command, run in ``folder``; its progress goes to the terminal."""
    command = [sys.executable, "-m", "dualproc_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout


COLUMNS = {
    "base": "base",
    "learned": "learned",
    "base_held_out": "base, held-out prompts",
    "learned_held_out": "learned, held-out prompts",
}
SHARES = {"right": "right", "clean": "clean", "right_and_clean": "right and clean"}


def table(results: dict) -> str:
    """Markdown: the verdicts with what is right and clean, each measure, and how much still varies."""
    verdicts = [["control", *SHARES.values(), "base, right and clean", "verdict", "seconds to learn"]]
    success = [["control", "measure", *COLUMNS.values()]]
    properties = dict.fromkeys(name for record in results.values() for name in record["spread"])
    spread = [["control", *properties]]
    for name, record in results.items():
        column = "learned" if record["clean"]["learned_held_out"] is None else "learned_held_out"
        learned = [percent(record[share][column]) for share in SHARES]
        base = percent(record["right_and_clean"][column.replace("learned", "base")])
        verdicts.append([name, *learned, base, record["verdict"]["name"], f"{record['seconds']:.0f}"])
        shares = {label: record[share] for share, label in SHARES.items()}
        for measure, figures in {**shares, **record["measures"]}.items():
            success.append([name, measure, *(percent(figures[column]) for column in COLUMNS)])
        ratios = (record["spread"].get(key) for key in properties)
        spread.append([name, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    parts = {
        "On held-out seeds and prompts (right: every goal is reached; clean: no more artefacts than 95 % of "
        "the base generator's own pictures):": verdicts,
        "Each measure:": success,
        "Spread over the seeds of a prompt, learned over base (1: all variety is kept):": spread,
    }
    return "\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in parts.items())


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def markdown(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
