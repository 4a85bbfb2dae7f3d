"""A step with the shared prefix beside the same step with one full VLM forward a question, in turns."""

import statistics
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.bench.counters import clock, flop_counter, forget_peak, peak_bytes, seconds_of
from dualproc_cli.bench.parts import Parts, step_in_parts
from dualproc_cli.compiler import CompositeLoss, LossReport, compile_loss
from dualproc_cli.generator import Generator
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import Vlm
from dualproc_cli.vlm.modes import Mode
from dualproc_cli.vlm.prefix import generated

# One forward over picture and question, whose last distribution serves all answers of one token.
FULL = Mode("full", generated, True)
WAYS = {"shared": "prefix", "full": "full forwards"}  # and what the VLM's main passes are in each


def compare(
    loaded: LoadedSpec, generator: Generator, vlm: Vlm, rounds: int, ceiling: float
) -> dict[str, Any]:
    """Measure both ways of asking the questions of ``loaded``.

    Whatever else the machine does hits both alike: they take turns. Prompts are encoded once, before.

    Args:
        loaded: the spec, whose step is measured.
        generator: with its adapter.
        vlm: to be asked.
        rounds: steps of each way; what is reported are medians.
        ceiling: FLOPs a second that the device can do.

    Returns:
        ``questions``, ``mode``, ``shared`` and ``full`` (see `_Way.report`), ``ratio`` (seconds of full over
        shared), and ``vlm``, the same for answers and their gradient in the pixels alone.
    """
    spec = loaded.spec
    criterion = compile_loss(loaded, vlm, spec.generator.height, spec.generator.width)
    criteria = {"shared": criterion, "full": _full(criterion)}
    for prompt in spec.prompts.train:
        generator.render([prompt], [0])
    ways = {name: _Way(Learner(spec, generator, criteria[name]), vlm, whole) for name, whole in WAYS.items()}
    for _ in range(rounds):
        for way in ways.values():
            way.measure()
    reports = {name: way.report(ceiling) for name, way in ways.items()}
    modes = [view.scorer.prepare(*view.window.size, view.beside) for view in criterion.views]
    return {
        "questions": len(spec.questions),
        "mode": ", ".join(dict.fromkeys(map(str, modes))),
        **reports,
        "ratio": reports["full"]["seconds"] / reports["shared"]["seconds"],
        "vlm": _vlm_alone(criteria, generator, rounds),
    }


class _Way:
    """One way of taking a step, and what was measured of it."""

    def __init__(self, learner: Learner, vlm: Vlm, whole: str) -> None:
        self.learner, self.vlm, self.whole = learner, vlm, whole
        self.device = learner.generator.device
        self.seconds: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.peak = 0
        with flop_counter() as counter:  # also warms up
            flops = Parts(counter.get_total_flops)
            step_in_parts(learner, vlm, flops, whole)
        self.flops = flops.spent

    def measure(self) -> None:
        """Take a step on the clock, and another in parts, where waiting for the device costs a little."""
        read = clock(self.device)
        forget_peak(self.device)
        self.seconds.append(seconds_of(self.learner.step, read))
        self.peak = max(self.peak, peak_bytes(self.device))
        parts = Parts(read)
        step_in_parts(self.learner, self.vlm, parts, self.whole)
        self.parts.append(parts.spent)

    def report(self, ceiling: float) -> dict[str, Any]:
        """``seconds`` a step, ``pictures_per_second``, ``flops``, ``share_of_ceiling`` (of the matmul rate),
        ``peak_bytes``, and ``parts`` by name: ``seconds``, ``flops``, ``share_of_ceiling``."""
        taken = {name: statistics.median(part[name] for part in self.parts) for name in self.parts[0]}
        seconds, flops = statistics.median(self.seconds), sum(self.flops.values())
        return {
            "seconds": seconds,
            "pictures_per_second": self.learner.spec.learn.batch_size / seconds,
            "flops": flops,
            "share_of_ceiling": flops / seconds / ceiling,
            "peak_bytes": self.peak,
            "parts": {
                name: {
                    "seconds": spent,
                    "flops": self.flops[name],
                    "share_of_ceiling": self.flops[name] / spent / ceiling if spent else 0.0,
                }
                for name, spent in sorted(taken.items(), key=lambda entry: -entry[1])
            },
        }


def _full(criterion: CompositeLoss) -> CompositeLoss:
    """The same loss with one full VLM forward a question."""
    views = [replace(view, scorer=view.scorer.in_mode(FULL)) for view in criterion.views]
    return CompositeLoss(views, criterion.learn)


def _vlm_alone(criteria: dict[str, CompositeLoss], generator: Generator, rounds: int) -> dict[str, float]:
    """Answers and their gradient in the pixels of noise, both ways.

    Returns:
        ``shared_seconds``, ``full_seconds``, ``ratio``, and how far the ways are apart: ``difference`` (the
        largest of a question's loss, nats), ``gradient_difference`` (relative to its largest entry).
    """
    spec, read = generator.spec, clock(generator.device)
    size = (criteria["shared"].learn.batch_size, 3, spec.height, spec.width)
    noise = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(generator.device)
    images = noise.requires_grad_()

    def ask(criterion: CompositeLoss) -> tuple[LossReport, Tensor]:
        report = criterion(images)
        return report, torch.autograd.grad(report.loss, images)[0]

    (found, gradient), (expected, expected_gradient) = (ask(criteria[name]) for name in ("shared", "full"))
    taken: dict[str, list[float]] = {name: [] for name in criteria}
    for _ in range(rounds):
        for name, criterion in criteria.items():
            taken[name].append(seconds_of(lambda asked=criterion: ask(asked), read))  # type: ignore[misc]
    shared, full = (statistics.median(taken[name]) for name in ("shared", "full"))
    distances = [(found.losses[name] - loss).abs().item() for name, loss in expected.losses.items()]
    gradient_distance = (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
    return {
        "shared_seconds": shared,
        "full_seconds": full,
        "ratio": full / shared,
        "difference": max(distances),
        "gradient_difference": gradient_distance.item(),
    }
