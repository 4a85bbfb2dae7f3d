"""Which seeds a control is learned on and which it is evaluated on: never the same."""

import torch

FIRST_HELD_OUT = 2**31


def held_out_seeds(count: int) -> list[int]:
    """The first ``count`` seeds that no run learns on: 2**31, 2**31 + 1, and so on."""
    return [FIRST_HELD_OUT + index for index in range(count)]


def draw_seeds(rng: torch.Generator, count: int) -> list[int]:
    """``count`` random seeds below `FIRST_HELD_OUT`, to learn on."""
    return torch.randint(FIRST_HELD_OUT, (count,), generator=rng).tolist()
