"""The output of a text encoder that hands out its parts when they are read.

It behaves as the output does that transformers returns: entries by name, by attribute and by position, and
the layers of ``hidden_states`` by index. So what a pipeline reads becomes known without knowing the pipeline.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

Part = tuple[str, int | None]  # an entry's name, and the index in it if it is a tuple


def parts_of(output: Any) -> dict[Part, Tensor] | None:
    """Return the tensors of ``output``, or None if it is not a mapping of tensors and tuples of tensors.

    Other entries, such as a decoder's key-value cache, are left out: pipelines do not read them.
    """
    if not isinstance(output, Mapping):
        return None
    found: dict[Part, Tensor] = {}
    for name, value in output.items():
        if isinstance(value, Tensor):
            found[name, None] = value
        elif isinstance(value, (tuple, list, Mapping)):
            if isinstance(value, Mapping) or not all(isinstance(item, Tensor) for item in value):
                return None
            found |= {(name, index): item for index, item in enumerate(value)}
    return found


def watched_output(kind: type, lengths: Mapping[str, int | None], part: Callable[[Part], Tensor]) -> Any:
    """Return an instance of ``kind`` whose tensors come from ``part`` when they are read.

    Args:
        kind: a class of mappings with attributes, such as ``BaseModelOutput``.
        lengths: the names of its entries, with the lengths of those that are tuples; None for tensors.
        part: returns a tensor.
    """
    watching = _watching(kind)
    made = dict.__new__(watching)
    object.__setattr__(made, "_entries", (dict(lengths), part))
    return made


class _Layers(tuple):
    """A tuple of tensors that come from ``part`` when they are read. It is empty to whatever reads memory.

    Called with tensors, it makes a plain tuple.
    """

    def __new__(cls, values: Iterable[Tensor] = ()) -> Any:
        return tuple(values)

    name: str
    length: int
    part: Callable[[Part], Tensor]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> Any:
        chosen = range(self.length)[key]
        if isinstance(chosen, range):
            return tuple(self.part((self.name, index)) for index in chosen)
        return self.part((self.name, chosen))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self[:])


def _layers(name: str, length: int, part: Callable[[Part], Tensor]) -> _Layers:
    made = tuple.__new__(_Layers)
    made.name, made.length, made.part = name, length, part
    return made


@functools.cache
def _watching(kind: Any) -> Any:
    """Return a subclass of ``kind``; called with entries, it makes a plain ``kind``."""

    class Watched(kind):
        def __new__(cls, **entries: Any) -> Any:
            return kind(**entries)

        def __getattribute__(self, name: str) -> Any:
            entries, part = object.__getattribute__(self, "_entries")
            if name not in entries:
                return super().__getattribute__(name)
            length = entries[name]
            return part((name, None)) if length is None else _layers(name, length, part)

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, str):
                if key not in self._entries[0]:
                    raise KeyError(key)
                return getattr(self, key)
            names = list(self._entries[0])[key]
            return getattr(self, names) if isinstance(names, str) else tuple(getattr(self, n) for n in names)

        def __iter__(self) -> Iterator[str]:
            return iter(self._entries[0])

        def __len__(self) -> int:
            return len(self._entries[0])

        def __contains__(self, key: object) -> bool:
            return key in self._entries[0]

        def get(self, key: str, default: Any = None) -> Any:
            entries: dict[str, Any] = self._entries[0]
            return self[key] if key in entries else default

        def keys(self) -> Any:
            return self._entries[0].keys()

        def values(self) -> Any:
            return [self[key] for key in self]

        def items(self) -> Any:
            return [(key, self[key]) for key in self]

        def to_tuple(self) -> tuple[Any, ...]:
            return tuple(self.values())

    Watched.__name__ = kind.__name__
    return Watched
