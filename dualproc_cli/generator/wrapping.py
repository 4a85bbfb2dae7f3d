"""Wrapping methods of one object for the length of a block."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(instance: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Replace the method ``name`` of ``instance`` by ``wrapper(method, ...)`` inside the block.

    Pipelines inspect the signatures of what they call, so the wrapper keeps the method's.
    """
    own = vars(instance).get(name)
    original = getattr(instance, name)
    setattr(instance, name, functools.wraps(original)(functools.partial(wrapper, original)))
    try:
        yield
    finally:
        if own is None:
            vars(instance).pop(name, None)
        else:
            setattr(instance, name, own)
