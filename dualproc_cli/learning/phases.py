"""The phases of learning: what each moves, and what it minimises.

`steer` moves what the frozen generator is given, by the VLM's answers. `teach` moves an adapter's weights,
until the generator draws from the plain inputs what it draws from the steered ones. `weights` moves the
adapter's weights by the VLM's answers, as in Luo et al. 2025; after the other two it goes on from there, held
to the steered pictures.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.generator import Generator, Steering
from dualproc_cli.generator.steered_call import SteeredPictures
from dualproc_cli.learning.keep import distance
from dualproc_cli.metrics import PhaseName
from dualproc_cli.spec import ControlSpec


@dataclass(frozen=True)
class PhaseLoss:
    """What a phase minimises for one batch: ``loss + keep``, scalars with their graphs.

    Attributes:
        loss: the questions' loss, or the teaching's.
        keep: the weighted cost of leaving the base generator.
        losses: the loss of each question, detached; empty without questions.
        probabilities: P(answer) [B] of each question, detached.
    """

    loss: Tensor
    keep: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    probabilities: dict[str, Tensor] = field(default_factory=dict)

    def detached(self) -> "PhaseLoss":
        """Return it without its graph."""
        return replace(self, loss=self.loss.detach(), keep=self.keep.detach())

    @staticmethod
    def of_parts(parts: Sequence[tuple[float, "PhaseLoss"]]) -> "PhaseLoss":
        """Return the loss of a batch from those of its parts, each with its share of the pictures."""
        if len(parts) == 1:
            return parts[0][1]

        def mean(values: Iterable[Tensor]) -> Tensor:
            return sum(share * value for (share, _), value in zip(parts, values, strict=True))  # type: ignore[return-value]

        found, first = [part for _, part in parts], parts[0][1]
        return PhaseLoss(
            mean(part.loss for part in found),
            mean(part.keep for part in found),
            {name: mean(part.losses[name] for part in found) for name in first.losses},
            {name: torch.cat([part.probabilities[name] for part in found]) for name in first.probabilities},
        )


class Phase(ABC):
    """One phase of a run.

    Attributes:
        name: in metrics.
        steps: how many steps it takes at most.
        batch_size: pictures a step.
        learning_rate: the highest one.
        rate_key: the key of the spec that sets it.
        asks: whether the VLM is asked, so that P(answer) can stop it.
    """

    name: PhaseName
    rate_key = "learn.learning_rate"
    asks = True

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        self.spec, self.generator, self.criterion = spec, generator, criterion
        self.steps, self.batch_size = spec.learn.steps, spec.learn.batch_size
        self.learning_rate = spec.learn.learning_rate

    def parameters(self) -> list[nn.Parameter]:
        """Return what is moved."""
        return self.generator.adapter_parameters()

    def drawing(self) -> AbstractContextManager[None]:
        """Return a context in which the generator draws what the phase has learned."""
        return nullcontext()

    @abstractmethod
    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the loss of B pictures of ``prompts`` at ``seeds``; ``rng`` draws wordings and jitter."""


class Steer(Phase):
    """Moves what the generator is given: the questions' loss, and what the steering costs."""

    name = "steer"
    rate_key = "learn.steer.learning_rate"

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        super().__init__(spec, generator, criterion)
        self.learning_rate = spec.learn.steer.learning_rate

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights of the steering."""
        return list(_steering(self.generator).parameters())

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw steered pictures, without the adapter, inside the block."""
        with _drawing_steered(self.generator):
            yield

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the questions' loss of the steered pictures, and the cost of the steering."""
        keep, steering = self.spec.learn.keep, _steering(self.generator)
        with _drawing_steered(self.generator) as pictures:
            images = self.generator.render(prompts, seeds, gradient=self.spec.learn.gradient)
        report = self.criterion(images, rng)
        cost = images.new_zeros(())
        if steering.noise is not None:
            cost = cost + keep.noise * pictures.noise_nats().mean()
        if len(steering.offsets):
            cost = cost + keep.conditioning * steering.conditioning_nats()
        if steering.colors is not None:
            cost = cost + keep.colors * pictures.recoloring.mean()
        return _asked(report, cost)


class Teach(Phase):
    """Moves the adapter towards the steered pictures: the mean square distance of the latents.

    Where colours are steered, which latents do not know, it is that of the pictures.
    """

    name = "teach"
    rate_key = "learn.teach.learning_rate"
    asks = False

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        super().__init__(spec, generator, criterion)
        teach = spec.learn.teach
        self.steps, self.batch_size, self.learning_rate = teach.steps, teach.batch_size, teach.learning_rate

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the mean square distance to what the frozen generator draws from the steered inputs."""
        generator, gradient = self.generator, self.spec.learn.gradient
        draw = generator.latents if _steering(generator).colors is None else generator.render
        jump = gradient if gradient.through == "x0-jump" else None  # the same estimate, of both
        with _drawing_steered(generator):
            taught = draw(prompts, seeds, gradient=jump).detach()
        learned = draw(prompts, seeds, gradient=gradient)
        return PhaseLoss((learned - taught).square().mean(), learned.new_zeros(()))


class Weights(Phase):
    """Moves the adapter by the VLM's answers, and keeps it near what it started from."""

    name = "weights"

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the questions' loss, and the distance to the base pictures, steered where they were."""
        generator, learn = self.generator, self.spec.learn
        images = generator.render(prompts, seeds, gradient=learn.gradient)
        report = self.criterion(images, rng)
        if not learn.keep.matters:
            return _asked(report, images.new_zeros(()))
        frozen = _drawing_steered if generator.steering is not None else Generator.without_adapter
        with frozen(generator):
            base = generator.render(prompts, seeds)
        return _asked(report, distance(images, base, learn.keep))


def phases_of(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> list[Phase]:
    """Return the phases of a run in their order."""
    kinds: list[type[Phase]] = []
    if spec.steered:
        kinds += [Steer, Teach]
    if "weights" in spec.where:
        kinds.append(Weights)
    return [kind(spec, generator, criterion) for kind in kinds]


@contextmanager
def _drawing_steered(generator: Generator) -> Iterator[SteeredPictures]:
    """Draw what the frozen generator draws from steered inputs, inside the block."""
    with generator.without_adapter(), generator.steered() as pictures:
        yield pictures


def _steering(generator: Generator) -> Steering:
    if generator.steering is None:
        raise ValueError("no steering was added to the generator")
    return generator.steering


def _asked(report: LossReport, keep: Tensor) -> PhaseLoss:
    return PhaseLoss(report.loss, keep, report.losses, report.probabilities)
