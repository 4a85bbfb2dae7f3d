"""Batches: dataclasses whose fields are tensors or other batches, all of the same length."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor


class Batched:
    """Base class of a dataclass whose fields all have the batch as their first dimension."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Return the batch of the chosen rows; ``index`` is what a tensor's first dimension takes."""
        return type(self)(**{name: getattr(self, name)[index] for name in self._names()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join batches in the order given."""
        return cls(**{name: _join([getattr(part, name) for part in parts]) for name in cls._names()})

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]


def _join(values: list[Any]) -> Any:
    return torch.cat(values) if isinstance(values[0], Tensor) else type(values[0]).concatenate(values)
