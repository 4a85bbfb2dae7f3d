"""Batches of records: dataclasses whose fields are tensors, or such batches themselves, all of one length."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor


class Batched:
    """Indexing and joining of a dataclass whose fields all begin with the batch dimension."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(**{name: getattr(self, name)[index] for name in self._names()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """One batch of several."""
        return cls(**{name: _join([getattr(part, name) for part in parts]) for name in cls._names()})

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]


def _join(values: list[Any]) -> Any:
    return torch.cat(values) if isinstance(values[0], Tensor) else type(values[0]).concatenate(values)
