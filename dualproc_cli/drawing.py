"""The seeds that are learned on, those held out and those for validation, and drawing a prompt at many seeds.

Controls are evaluated on held-out seeds, which no run learns on.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from dualproc_cli.generator import Generator

FIRST_HELD_OUT = 2**31
FIRST_VALIDATION = FIRST_HELD_OUT + 2**30


def held_out_seeds(count: int) -> list[int]:
    """Return the first ``count`` seeds that no run learns on: 2**31, 2**31 + 1, and so on."""
    return [FIRST_HELD_OUT + index for index in range(count)]


def validation_seeds(count: int) -> list[int]:
    """Return ``count`` seeds that no run learns on and no evaluation uses, to choose between checkpoints."""
    return [FIRST_VALIDATION + index for index in range(count)]


def draw_seeds(rng: torch.Generator, count: int) -> list[int]:
    """Return ``count`` random seeds below `FIRST_HELD_OUT`, to learn on."""
    return torch.randint(FIRST_HELD_OUT, (count,), generator=rng).tolist()


@cache
def seed_pool(seed: int, count: int) -> tuple[int, ...]:
    """Return ``count`` seeds below `FIRST_HELD_OUT`, the same for the same ``seed``, to learn on in turn."""
    return tuple(draw_seeds(torch.Generator().manual_seed(seed), count))


def draw_pictures(
    generator: Generator, prompt: str, seeds: Sequence[int], batch_size: int, steps: int | None = None
) -> Iterator[Tensor]:
    """Draw a prompt at each of ``seeds``, ``batch_size`` pictures at once.

    A picture depends on its own prompt and seed alone, up to the rounding of another batch size.

    Args:
        generator: draws with its active adapters.
        prompt: what to draw.
        seeds: one per picture.
        batch_size: the most pictures drawn at once.
        steps: denoising steps; None takes the generator's.

    Yields:
        the pictures [3, H, W] in [0, 1] in the order of the seeds, on the generator's device, without graph.
    """
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        yield from generator.render([prompt] * len(batch), batch, steps=steps)
