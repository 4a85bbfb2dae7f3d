"""Measure what a step of learning costs for several pairs of models, and write the table `speed.md`.

    python examples/speed.py [--device cuda] [--steps 5]

On a CUDA device it measures the real shapes of FLUX.1-schnell and Qwen2.5-VL-7B, whose weights are random:
nothing is downloaded. On the CPU it measures the miniature.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from make import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "speed.json"
TABLE = HERE / "speed.md"

QUESTIONS = ["--questions", "1", "--questions", "5"]
SMALLER = ["--set", "memory=[checkpoint-vae, checkpoint-denoiser, int8]"]
FLUX = ["--random-weights", "black-forest-labs/FLUX.1-schnell"]
FLUX += ["--random-weights", "Qwen/Qwen2.5-VL-7B-Instruct"]
FLUX += ["--set", "generator.width=512", "--set", "generator.height=512", "--set", "generator.steps=1"]
SMALLEST = ["--set", "memory=[free-text-encoders, checkpoint-vae, checkpoint-denoiser, nf4]"]
HALF = ["--set", "generator.dtype=bfloat16", "--set", "vlm.dtype=bfloat16"]

CASES = {
    "cpu": [
        ["--batch", "1"],
        ["--batch", "4"],
        ["--batch", "4", *HALF],
        ["--batch", "4", *SMALLER],
    ],
    "cuda": [[*FLUX, *memory, "--batch", batch] for memory in ([], SMALLEST) for batch in ("1", "4")],
}
COLUMNS = (
    "generator",
    "VLM",
    "precision",
    "memory strategies",
    "pictures a step",
    "questions",
    "seconds a step",
    "GFLOP/s of matrix products",
    "share of it",
    "peak GiB",
    "predicted GiB",
    "step, full over shared",
    "VLM, full over shared",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=CASES, default="cpu")
    parser.add_argument("--steps", type=int, default=5, help="steps to measure of each kind")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.device] = [measure(case, options.device, options.steps) for case in CASES[options.device]]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    TABLE.write_text("\n".join(section(found) for found in results.values()))


def measure(case: list[str], device: str, steps: int) -> dict:
    """What `dualproc bench` says, in a process of its own, so that the peak of memory is the case's own."""
    arguments = [*case, *QUESTIONS, "--device", device, "--steps", str(steps), "--json"]
    print("dualproc bench", *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "dualproc_cli", "bench", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def section(measured: list[dict]) -> str:
    """A device and its table."""
    rows = [cells(found, row) for found in measured for row in found["rows"]]
    title = f"On {measured[0]['device']}, threads: {measured[0]['threads']}."
    if measured[0]["device"].startswith("cpu"):
        title += " The peak is that of the process with all libraries, the prediction of the models alone."
    return f"{title}\n\n{markdown([list(COLUMNS), *rows])}"


def cells(found: dict, row: dict) -> list[str]:
    shared = row["shared"]
    return [
        f"{found['generator'].rpartition('/')[2]}, {found['width']} px",
        found["vlm"].rpartition("/")[2],
        " and ".join(dict.fromkeys(found["dtypes"])),
        ", ".join(found["memory"]) or "nothing",
        str(found["batch_size"]),
        str(row["questions"]),
        f"{shared['seconds']:.3g}",
        f"{found['matmul_flops_per_second'] / 1e9:.0f}",
        f"{shared['share_of_ceiling']:.0%}",
        f"{shared['peak_bytes'] / 2**30:.2f}",
        f"{row['predicted_bytes'] / 2**30:.2f}" if row["predicted_bytes"] else "",
        f"{row['ratio']:.2f}",
        f"{row['vlm']['ratio']:.2f}",
    ]


if __name__ == "__main__":
    main()
