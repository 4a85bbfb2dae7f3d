"""What every phase of learning has: what it moves, and what it minimises."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.generator import Generator, Steering
from dualproc_cli.generator.steered_call import SteeredPictures
from dualproc_cli.metrics import PhaseName, StepMetrics
from dualproc_cli.spec import ControlSpec, GradientSpec, Question

WORTH = 0.5  # share of the worth of a batch's best picture that others must have to be learned from


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
        variety: prompts that it draws from beside those that are learned on.
        leaves_far: whether an answer that stays unlikely is left to a later phase, which moves other things.
        start: the adapter's weights when the phase began, if it goes back to them; else empty.
    """

    name: PhaseName
    rate_key = "learn.learning_rate"
    asks = True
    leaves_far = False

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        self.spec, self.generator, self.criterion = spec, generator, criterion
        self.steps, self.batch_size = spec.learn.steps, spec.learn.batch_size
        self.learning_rate = spec.learn.learning_rate
        self.variety: tuple[str, ...] = ()
        self.start: dict[str, Tensor] = {}

    @property
    def extends(self) -> bool:
        """Whether it takes more steps (``learn.extend``) if P(answer) is low."""
        return self.asks

    def parameters(self) -> list[nn.Parameter]:
        """Return what is moved."""
        return self.generator.adapter_parameters()

    def begin(self) -> None:
        """Take note of what the phase begins with."""
        self.start = {}

    def began(self, metrics: Sequence[StepMetrics]) -> int:
        """Return after how many of the phase's steps, which ``metrics`` are of, it last began anew."""
        return 0

    def begin_anew(self) -> None:
        """Set what is moved to where the phase begins anew.

        Raises:
            NotImplementedError: it never does.
        """
        raise NotImplementedError

    def drawing(self) -> AbstractContextManager[None]:
        """Return a context in which the generator draws what the phase has learned."""
        return nullcontext()

    def gradient(self, rng: torch.Generator) -> GradientSpec:
        """Return through which denoising steps to differentiate; ``rng`` draws a random one."""
        gradient, steps = self.spec.learn.gradient, self.spec.generator.steps
        if gradient.through != "x0-jump" or gradient.step != "random":
            return gradient
        return gradient.at(int(torch.randint(steps, (), generator=rng)) + 1)

    def worth(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor | None:
        """Return how much each of B pictures is worth learning from, [B]; None if all are worth the same."""
        return None

    def look(self) -> dict[str, Tensor]:
        """Return P(answer) [B] of each question about a few pictures, for phases whose loss does not ask."""
        return {}

    @abstractmethod
    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the loss of B pictures of ``prompts`` at ``seeds``; ``rng`` draws wordings and jitter."""


def micro_batches(spec: ControlSpec, generator: Generator, count: int) -> Iterator[slice]:
    """Yield the rows of each micro-batch of a batch of ``count`` pictures."""
    return _parts(count, generator.at_once(count, spec.learn.micro_batch))


def asked_at_once(spec: ControlSpec, generator: Generator, count: int) -> Iterator[slice]:
    """Yield the rows of ``count`` pictures that are only looked at, at once as many as in a step at most."""
    return _parts(count, generator.at_once(spec.learn.batch_size, spec.learn.micro_batch))


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def worthy(worth: Tensor) -> Tensor:
    """Return which pictures [B] are worth at least `WORTH` of what the best of them is: [B] bool."""
    return ~(worth < WORTH * worth.max())


def least_likely(report: LossReport, questions: Iterable[Question]) -> Tensor:
    """Return the smallest P(answer) of those ``questions`` that are learned, [B]."""
    learned = [question.name for question in questions if question.weight > 0]
    return torch.stack([report.probabilities[name] for name in learned]).amin(0)


def jump(gradient: GradientSpec) -> GradientSpec | None:
    """Return how to draw what is compared with a picture drawn with ``gradient``: after a jump, by a jump."""
    return gradient if gradient.through == "x0-jump" else None


@contextmanager
def drawing_steered(generator: Generator) -> Iterator[SteeredPictures]:
    """Draw what the frozen generator draws from steered inputs, inside the block."""
    with generator.without_adapter(), generator.steered() as pictures:
        yield pictures


def steering_of(generator: Generator) -> Steering:
    """Return the steering that was added to ``generator``."""
    if generator.steering is None:
        raise ValueError("no steering was added to the generator")
    return generator.steering
