"""The phases of learning: what each moves, and what it minimises.

`steer` moves what the frozen generator is given, by the VLM's answers. `teach` moves an adapter's weights,
until the generator draws from the plain inputs what it draws from the steered ones. `weights` moves the
adapter's weights by the VLM's answers, as in Luo et al. 2025; after the other two it goes on from there, held
to what was taught.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.generator import Generator
from dualproc_cli.keep import distance
from dualproc_cli.learning.from_answers import open_questions, start_from_answers
from dualproc_cli.learning.phase import Phase, PhaseLoss, drawing_steered, jump, steering_of
from dualproc_cli.learning.teach import Teach
from dualproc_cli.metrics import StepMetrics, mean_probability
from dualproc_cli.spec import ControlSpec, Question

# After its steps, steering the conditioning to an open answer begins anew if the answer's P is below LOST in
# the mean over the last RECENT of them. What is found from nothing goes least far, and comes out cleaner.
# Ended sooner, it left answers that come later.
LOST, RECENT = 0.2, 20


class Steer(Phase):
    """Moves what the generator is given: the questions' loss, and what the steering costs."""

    name = "steer"
    rate_key = "learn.steer.learning_rate"

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        super().__init__(spec, generator, criterion)
        self.learning_rate = spec.learn.steer.learning_rate
        self.leaves_far = "weights" in spec.where
        self._nothing = generator.steering_state()  # steers nothing

    def began(self, metrics: Sequence[StepMetrics]) -> int:
        """Return after how many of ``metrics`` it last began anew, at what the answers' words lead to."""
        return self.steps if len(metrics) >= self.steps and self._is_lost(metrics) else 0

    def begin_anew(self) -> None:
        """Steer to where the answers' words lead, if the VLM prefers that, or anew from nothing."""
        self.generator.load_steering_state(self._nothing)
        start_from_answers(self.spec, self.generator, self.criterion)

    @property
    def extends(self) -> bool:
        """Whether it takes more steps if P(answer) is low: not if it may begin anew instead."""
        return not self._words

    @property
    def _words(self) -> list[Question]:
        return open_questions(self.spec) if "conditioning" in self.spec.steered else []

    def _is_lost(self, metrics: Sequence[StepMetrics]) -> bool:
        recent, elsewhere = metrics[: self.steps][-RECENT:], self.spec.learn.steer.from_answers
        return elsewhere and any(mean_probability(recent, question.name) < LOST for question in self._words)

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights of the steering."""
        return list(steering_of(self.generator).parameters())

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw steered pictures, without the adapter, inside the block."""
        with drawing_steered(self.generator):
            yield

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the questions' loss of the steered pictures, and the cost of the steering."""
        keep, steering = self.spec.learn.keep, steering_of(self.generator)
        with drawing_steered(self.generator) as pictures:
            images = self.generator.render(prompts, seeds, gradient=self.gradient(rng))
        report = self.criterion(images, rng)
        cost = images.new_zeros(())
        if steering.noise is not None:
            cost = cost + keep.noise * pictures.noise_nats().mean()
        if len(steering.offsets):
            cost = cost + keep.conditioning * steering.conditioning_cost()
        if steering.colors is not None:
            cost = cost + keep.colors * pictures.recoloring.mean()
        return _asked(report, cost)


class Weights(Phase):
    """Moves the adapter by the VLM's answers, and keeps it near what it started from.

    That is what the base generator draws, or, after teaching, what the adapter draws: the steered pictures
    are not quite what was taught, and held to them, faces came out between the two.
    """

    name = "weights"

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        super().__init__(spec, generator, criterion)
        self.variety = spec.variety

    def begin(self) -> None:
        """Take note of what the adapter was taught."""
        if self.generator.steering is not None:
            self.start = self.generator.adapter_state()

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the questions' loss, and the distance to the pictures that it started from."""
        generator, keep = self.generator, self.spec.learn.keep
        gradient = self.gradient(rng)
        if keep.matters:
            with generator.with_adapter_state(self.start) if self.start else generator.without_adapter():
                # After a jump, an estimate is compared with the same estimate, which is blurred as much.
                base = generator.render(prompts, seeds, gradient=jump(gradient)).detach()
        images = generator.render(prompts, seeds, gradient=gradient)
        report = self.criterion(images, rng)
        return _asked(report, distance(images, base, keep) if keep.matters else images.new_zeros(()))


def phases_of(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> list[Phase]:
    """Return the phases of a run in their order; where other words were found, nothing is left to steer."""
    kinds: list[type[Phase]] = []
    if spec.steered:
        kinds += [Teach] if generator.words else [Steer, Teach]
    if "weights" in spec.where:
        kinds.append(Weights)
    return [kind(spec, generator, criterion) for kind in kinds]


def _asked(report: LossReport, keep: Tensor) -> PhaseLoss:
    return PhaseLoss(report.loss, keep, report.losses, report.probabilities)
