"""Teaching an adapter what was steered: regression on the pictures that came out as they should."""

from collections.abc import Collection, Iterator, Sequence
from itertools import cycle

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import Generator
from dualproc_cli.generator.blocks import block_outputs, distances
from dualproc_cli.learning.phase import (
    Phase,
    PhaseLoss,
    asked_at_once,
    drawing_steered,
    jump,
    least_likely,
    steering_of,
    worthy,
)
from dualproc_cli.spec import ControlSpec, GradientSpec

EXAMPLES = 4  # pictures by which the distances are weighed
TRIED = 24  # pictures by which steering is found to be right about all or not
LOOKED = 8  # pictures of the adapter's that the VLM is asked about now and then
FEATURES = 6.0  # how much more the blocks' outputs count, all together, than the picture


class Teach(Phase):
    """Moves the adapter until the generator draws from the plain inputs what it draws from the steered ones.

    The loss is the share of the steering's effect that is not learned yet: the mean square distance to the
    steered latents, over that of the base generator's, and likewise for what the denoiser's blocks return on
    the way, which teach more than the result alone (`FEATURES`). Where colours are steered, which latents do
    not know, pictures take their place.

    Where steering is not right about every picture, a wrong one teaches what is wrong. So the VLM is asked
    about the steered pictures first, and those that are far from the answers are left out: the adapter then
    draws from their noise, too, what it has learned from the others. (Fine-tuning on what a reward ranks
    highest: Dong et al. 2023, "RAFT", arXiv 2304.06767.) Where all of `TRIED` pictures are right, it is not
    asked.
    """

    name = "teach"
    rate_key = "learn.teach.learning_rate"
    asks = False

    def __init__(self, spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> None:
        super().__init__(spec, generator, criterion)
        teach = spec.learn.teach
        self.steps, self.batch_size, self.learning_rate = teach.steps, teach.batch_size, teach.learning_rate
        if spec.learn.variety:
            self.variety = tuple(prompt for prompt in generator.words if prompt not in spec.prompts.train)
        self._weights: list[float] = []  # of each distance, once the steering's effect is known
        self._all_right: bool | None = None  # whether steering is right about every picture, once it is known

    def worth(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor | None:
        """Return the smallest P(answer) of the learned questions about each steered picture, [B].

        None if steering is right about all pictures.
        """
        if self._all_right is None:
            tried = [self._least_likely(*part) for part in self._parts(TRIED)]
            self._all_right = bool(worthy(torch.cat(tried)).all())
        return None if self._all_right else self._least_likely(prompts, seeds)

    @torch.no_grad()
    def look(self) -> dict[str, Tensor]:
        """Return P(answer) [`LOOKED`] of each question about pictures that the adapter draws."""
        found = [self.criterion(self.generator.render(*part)).probabilities for part in self._parts(LOOKED)]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    @torch.no_grad()
    def _least_likely(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        with drawing_steered(self.generator):
            report = self.criterion(self.generator.render(prompts, seeds))
        return least_likely(report, self.spec.asked)

    def _examples(self, count: int) -> Iterator[tuple[str, int]]:
        """Yield prompts with seeds, always the same, so that a resumed run finds the same of them."""
        yield from zip(cycle(self.spec.prompts.train), validation_seeds(count), strict=False)

    def _parts(self, count: int) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """Yield the prompts and the seeds of ``count`` examples, as many as are drawn at once."""
        prompts, seeds = zip(*self._examples(count), strict=True)
        for rows in asked_at_once(self.spec, self.generator, count):
            yield prompts[rows], seeds[rows]

    def loss(self, prompts: Sequence[str], seeds: Sequence[int], rng: torch.Generator) -> PhaseLoss:
        """Return the share of the steering's effect on these pictures that is not learned yet."""
        if not self._weights:
            self._weights = self._weigh()
        gradient = self.gradient(rng)
        learned, calls = self._learned(prompts, seeds, gradient)
        left = distances(learned, self._taught(prompts, seeds, gradient, calls))
        parts = [weight * part for weight, part in zip(self._weights, left, strict=True)]
        return PhaseLoss(torch.stack(parts).sum(), learned[0].new_zeros(()))

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int], gradient: GradientSpec | None) -> Tensor:
        colors = steering_of(self.generator).colors
        draw = self.generator.latents if colors is None else self.generator.render
        return draw(prompts, seeds, gradient=gradient)

    def _learned(
        self, prompts: Sequence[str], seeds: Sequence[int], gradient: GradientSpec
    ) -> tuple[list[Tensor], list[int]]:
        """Return what the adapter draws and its blocks' outputs, and the numbers of the blocks' calls."""
        with block_outputs(self.generator.denoiser) as outputs:
            picture = self._draw(prompts, seeds, gradient)
        return [picture, *outputs.tensors], list(outputs.calls)

    def _taught(
        self, prompts: Sequence[str], seeds: Sequence[int], gradient: GradientSpec, calls: Collection[int]
    ) -> list[Tensor]:
        """Return the same of the frozen generator, drawing from the steered inputs."""
        with drawing_steered(self.generator), block_outputs(self.generator.denoiser, calls) as outputs:
            return [self._draw(prompts, seeds, jump(gradient)), *outputs.tensors]

    def _weigh(self) -> list[float]:
        """Return the weight of each distance: a share of the total, over what steering does to it.

        They depend on the frozen generator and the steering alone, and so a resumed run finds the same. What
        steering leaves as it is weighs nothing.
        """
        gradient = self.spec.learn.gradient
        if gradient.through == "x0-jump":
            gradient = gradient.at(self.spec.generator.steps)  # any will do, but always the same
        effects = []
        for prompt, seed in self._examples(EXAMPLES):
            _, calls = self._learned([prompt], [seed], gradient)
            with self.generator.without_adapter(), block_outputs(self.generator.denoiser, calls) as outputs:
                base = [self._draw([prompt], [seed], jump(gradient)).detach(), *outputs.tensors]
            effects.append(torch.stack(distances(base, self._taught([prompt], [seed], gradient, calls))))
        effect = torch.stack(effects).detach().mean(0).tolist()
        shares = [1.0] + [FEATURES / max(len(effect) - 1, 1)] * (len(effect) - 1)
        total = sum(share for share, size in zip(shares, effect, strict=True) if size > 0)
        return [share / total / size if size > 0 else 0.0 for share, size in zip(shares, effect, strict=True)]
