"""The blocks that a denoiser repeats, and what they return while pictures are drawn."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

WATCHED = 8  # blocks at most whose outputs are kept, spread evenly: they are as large as what backward keeps


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """Return the outermost members of a denoiser's module lists: transformer blocks, U-Net levels."""
    found: list[nn.Module] = []
    for module in denoiser.children():
        found += module if isinstance(module, nn.ModuleList) else blocks(module)
    return found


class BlockOutputs:
    """What some blocks returned, call by call.

    Attributes:
        calls: the tensors of each call that was kept, by the number of the call.
    """

    def __init__(self, only: Collection[int] | None) -> None:
        self.calls: dict[int, list[Tensor]] = {}
        self._only, self._count = only, 0

    def hook(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """Keep ``output`` if its call is one to keep: a forward hook."""
        found = [value for value in _tensors(output) if value.is_floating_point()]
        recorded = any(value.requires_grad for value in found)
        if recorded if self._only is None else self._count in self._only:
            self.calls[self._count] = found
        self._count += 1

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that were kept, in the order of the calls."""
        return [value for values in self.calls.values() for value in values]


@contextmanager
def block_outputs(denoiser: nn.Module, only: Collection[int] | None = None) -> Iterator[BlockOutputs]:
    """Keep what blocks of ``denoiser`` return inside the block.

    Args:
        denoiser: at most `WATCHED` of its blocks are watched, among them the last.
        only: the numbers of the calls to keep, from 0; None keeps those that record a gradient.
    """
    found, outputs = blocks(denoiser), BlockOutputs(only)
    count = min(WATCHED, len(found))
    with ExitStack() as stack:
        for index in range(count):
            block = found[(index + 1) * len(found) // count - 1]
            stack.enter_context(block.register_forward_hook(outputs.hook))
        yield outputs


def distances(ones: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean square distance of each pair, scalars, with the graphs of ``ones``."""
    pairs = zip(ones, others, strict=True)
    return [(one.float() - other.detach().float()).square().mean() for one, other in pairs]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [value for part in output for value in _tensors(part)] if isinstance(output, tuple | list) else []
