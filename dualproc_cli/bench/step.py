"""Comparing a step with the shared prefix to the same step with one full VLM forward per question."""

import statistics
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dualproc_cli.bench.counters import clock, flop_counter, forget_peak, peak_bytes, seconds_of
from dualproc_cli.bench.parts import Parts, step_in_parts
from dualproc_cli.bench.report import PartCost, StepComparison, StepCost, VlmCost
from dualproc_cli.compiler import CompositeLoss, LossReport, compile_loss
from dualproc_cli.generator import Generator
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import Vlm
from dualproc_cli.vlm.modes import ForwardMode
from dualproc_cli.vlm.prefix import generated

# One forward over picture and question, whose last distribution serves all answers of one token.
FULL = ForwardMode("full", generated, True)


def compare_steps(
    loaded: LoadedSpec, generator: Generator, vlm: Vlm, rounds: int, ceiling: float
) -> StepComparison:
    """Measure a step of ``loaded`` with the shared prefix and with full forwards.

    The two take turns, so that other work of the machine slows both. Prompts are encoded before.

    Args:
        loaded: the spec.
        generator: with its adapter.
        vlm: the VLM that answers the questions.
        rounds: steps of each kind; the figures are medians.
        ceiling: FLOPs per second of the device's matrix products.
    """
    spec = loaded.spec
    criterion = compile_loss(loaded, vlm, spec.generator.height, spec.generator.width)
    full = _with_full_forwards(criterion)
    for prompt in spec.prompts.train:
        generator.render([prompt], [0])
    steps = (
        _MeasuredStep(Learner(spec, generator, criterion), vlm, "prefix"),
        _MeasuredStep(Learner(spec, generator, full), vlm, "full forwards"),
    )
    for _ in range(rounds):
        for step in steps:
            step.measure()
    shared_cost, full_cost = (step.cost(ceiling) for step in steps)
    modes = [view.scorer.prepare(*view.size, view.beside) for view in criterion.views]
    return StepComparison(
        questions=len(spec.questions),
        mode=", ".join(dict.fromkeys(map(str, modes))),
        shared=shared_cost,
        full=full_cost,
        ratio=full_cost.seconds / shared_cost.seconds,
        vlm=_vlm_alone(criterion, full, generator, rounds),
    )


class _MeasuredStep:
    """The step of a learner, and its measurements."""

    def __init__(self, learner: Learner, vlm: Vlm, main_pass: str) -> None:
        self.learner, self.vlm, self.main_pass = learner, vlm, main_pass
        self.device = learner.generator.device
        self.seconds: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.peak = 0
        with flop_counter() as counter:  # also warms up
            flops = Parts(counter.get_total_flops)
            step_in_parts(learner, vlm, flops, main_pass)
        self.flops = flops.spent

    def measure(self) -> None:
        """Time a step, then another in parts, which takes a little longer because it waits for the device."""
        read = clock(self.device)
        forget_peak(self.device)
        self.seconds.append(seconds_of(self.learner.step, read))
        self.peak = max(self.peak, peak_bytes(self.device))
        parts = Parts(read)
        step_in_parts(self.learner, self.vlm, parts, self.main_pass)
        self.parts.append(parts.spent)

    def cost(self, ceiling: float) -> StepCost:
        """Return the medians; ``ceiling`` is in FLOPs per second."""
        taken = {name: statistics.median(part[name] for part in self.parts) for name in self.parts[0]}
        seconds, flops = statistics.median(self.seconds), sum(self.flops.values())
        return StepCost(
            seconds=seconds,
            pictures_per_second=self.learner.spec.learn.batch_size / seconds,
            flops=flops,
            share_of_ceiling=flops / seconds / ceiling,
            peak_bytes=self.peak,
            parts={
                name: PartCost(
                    seconds=spent,
                    flops=self.flops[name],
                    share_of_ceiling=self.flops[name] / spent / ceiling if spent else 0.0,
                )
                for name, spent in sorted(taken.items(), key=lambda entry: -entry[1])
            },
        )


def _with_full_forwards(criterion: CompositeLoss) -> CompositeLoss:
    """Return the same loss with one full VLM forward per question."""
    views = [replace(view, scorer=view.scorer.in_mode(FULL)) for view in criterion.views]
    return CompositeLoss(views, criterion.learn)


def _vlm_alone(shared: CompositeLoss, full: CompositeLoss, generator: Generator, rounds: int) -> VlmCost:
    """Measure the answers about noise and their gradient in its pixels, in turns."""
    spec, read = generator.spec, clock(generator.device)
    size = (shared.learn.batch_size, 3, spec.height, spec.width)
    noise = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(generator.device)
    images = noise.requires_grad_()

    def with_gradient(criterion: CompositeLoss) -> tuple[LossReport, Tensor]:
        report = criterion(images)
        return report, torch.autograd.grad(report.loss, images)[0]

    (found, gradient), (expected, expected_gradient) = with_gradient(shared), with_gradient(full)
    taken = [
        [seconds_of(partial(with_gradient, criterion), read) for criterion in (shared, full)]
        for _ in range(rounds)
    ]
    shared_seconds, full_seconds = (statistics.median(seconds) for seconds in zip(*taken, strict=True))
    differences = [(found.losses[name] - loss).abs().item() for name, loss in expected.losses.items()]
    gradient_difference = (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
    return VlmCost(
        shared_seconds=shared_seconds,
        full_seconds=full_seconds,
        ratio=full_seconds / shared_seconds,
        difference=max(differences),
        gradient_difference=gradient_difference.item(),
    )
