"""Learn and evaluate every control of `specs/`, and write the table and the pictures of this folder.

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

HERE = Path(__file__).parent
SPECS = HERE.parent / "specs"
RESULTS = HERE / "results.json"
TABLE = HERE / "results.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    """Run both commands as a user would; returns their figures and keeps the before-and-after picture."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        started = time.perf_counter()
        run("learn", str(spec), "-o", str(bundle))
        seconds = time.perf_counter() - started
        record = json.loads(run("evaluate", str(bundle), "--seeds", str(seeds), "--json"))
        pictures = HERE / spec.stem
        pictures.mkdir(exist_ok=True)
        shutil.copy(bundle / "samples" / "before-after.png", pictures)
    return {"seconds": round(seconds, 1), **record}


def run(*arguments: str) -> str:
    """The output of a dualproc command; its progress goes to the terminal."""
    command = [sys.executable, "-m", "dualproc_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(results: dict) -> str:
    """Markdown: measured success before and after, on training and held-out prompts, and what else still varies."""
    percent = lambda value: "" if value is None else f"{100 * value:.0f} %"  # noqa: E731
    lines = [
        "| control | measure | base | learned | base, held-out prompts | learned, held-out prompts | spread kept | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, record in results.items():
        for measure, figures in record["measures"].items():
            columns = [percent(figures[key]) for key in ("base", "learned", "base_held_out", "learned_held_out")]
            kept = ", ".join(f"{what} {ratio:.2f}" for what, ratio in record["spread"].items())
            lines.append(
                f"| {name} | {measure} | " + " | ".join(columns) + f" | {kept} | {record['seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
