"""How much time the shared prefix saves: ``python -m dualproc_cli.vlm.bench [MODEL] [--json]``.

One step's worth of work, log-likelihoods and their gradient in the pixels, for 1, 3, 5 and 8 questions: in
the mode that the self-check chose, against one full forward pass a question. Both are measured in turns
within one run, so that whatever else the machine does hits both alike.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.device import pick_device
from dualproc_cli.spec import VlmSpec
from dualproc_cli.vlm.chat import plan_prompts
from dualproc_cli.vlm.load import Vlm, load_vlm
from dualproc_cli.vlm.prefix import plain
from dualproc_cli.vlm.reading import Reader, choose

QUESTIONS = (
    "Is the horizon at the red line?",
    "Do the colors match the palette?",
    "Is the tree bare?",
    "Is there a house?",
    "Is it night?",
    "Is the lamp lit?",
    "Are the outlines as thick as the red line?",
    "Is point A closer than point B?",
)
COUNTS = (1, 3, 5, 8)


def measure(vlm: Vlm, count: int, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of both ways for the first ``count`` questions about ``batch`` square pictures.

    Returns:
        ``questions``, ``mode``, ``shared_ms``, ``full_ms``, ``ratio`` (full over shared), and the largest
        difference of an answer's log-probability (``difference``, nats) and of the pixels' gradient
        (``gradient_difference``, relative to its largest entry).
    """
    prompts = plan_prompts(vlm.processor, QUESTIONS[:count], [["Yes"]] * count, [(size, size)])
    reader = Reader(vlm, prompts, None)
    mode = choose(reader, size, size)
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(vlm.device)
    images.requires_grad_()

    def shared() -> tuple[Tensor, Tensor]:
        return _step(reader.read(mode.way, images, range(count), mode.batched), images)

    def full() -> tuple[Tensor, Tensor]:
        return _step(reader.read(plain, images, range(count), True), images)

    (found, gradient), (expected, expected_gradient) = shared(), full()  # warms both up
    seconds: dict[Callable[[], Any], list[float]] = {shared: [], full: []}
    for _ in range(rounds):
        for step, taken in seconds.items():
            taken.append(_seconds(step, vlm.device))
    shared_ms, full_ms = (1000 * statistics.median(seconds[step]) for step in (shared, full))
    return {
        "questions": count,
        "mode": mode.name,
        "shared_ms": round(shared_ms, 2),
        "full_ms": round(full_ms, 2),
        "ratio": round(full_ms / shared_ms, 2),
        "difference": (found - expected).abs().max().item(),
        "gradient_difference": (
            (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
        ).item(),
    }


def _step(log_p: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(-log_p.mean(), images)
    return log_p.detach(), gradient


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dualproc_cli.vlm.bench", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("model", nargs="?", default="miniature", help="hub id, folder or miniature")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step")
    parser.add_argument("--size", type=int, default=64, help="height and width of the pictures in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="repetitions of each measurement")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    vlm = load_vlm(VlmSpec(model=options.model), pick_device(options.device))
    rows = [measure(vlm, count, options.batch, options.size, options.rounds) for count in COUNTS]
    if options.json:
        print(
            json.dumps({"model": options.model, "batch": options.batch, "size": options.size, "rows": rows})
        )
        return
    size = f"{options.size}x{options.size}"
    print(f"{options.model}, {options.batch} pictures of {size}, {vlm.dtype} on {vlm.device}")
    print("questions  mode      shared ms   full ms  full/shared  difference  of gradient")
    for row in rows:
        print(
            "{questions:9}  {mode:8}  {shared_ms:9.2f}  {full_ms:8.2f}  {ratio:11.2f}"
            "  {difference:10.1e}  {gradient_difference:11.1e}".format(**row)
        )


if __name__ == "__main__":
    main()
