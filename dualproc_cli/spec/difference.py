"""How two specs differ, value by value."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dualproc_cli.spec.control import ControlSpec
from dualproc_cli.spec.faults import shown


@dataclass(frozen=True)
class Difference:
    """A value that two specs do not share.

    Attributes:
        key: dotted; a question or a measure is named by its name instead of its index.
        before: the first spec's value; None if ``added``.
        after: the second spec's value; None if ``removed``.
        added: only the second spec has the key.
        removed: only the first spec has the key.
    """

    key: str
    before: Any
    after: Any
    added: bool = False
    removed: bool = False

    def __str__(self) -> str:
        if self.added:
            return f"{self.key}: added: {_written(self.after)}"
        if self.removed:
            return f"{self.key}: removed: {_written(self.before)}"
        return f"{self.key}: {_written(self.before)} -> {_written(self.after)}"


def differences(before: ControlSpec, after: ControlSpec) -> list[Difference]:
    """Return the values that differ, defaults and presets included, in the order of the specs.

    Questions, measures and visual prompts are compared by their names, lists of texts as a whole.
    """
    return list(_compared("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _compared(key: str, before: Any, after: Any) -> Iterator[Difference]:
    before, after = _by_name(before), _by_name(after)
    if before == after:
        return
    if not (isinstance(before, dict) and isinstance(after, dict)):
        yield Difference(key, before, after)
        return
    for name in dict.fromkeys([*before, *after]):
        inner = f"{key}.{name}".removeprefix(".")
        if name not in before:
            yield Difference(inner, None, after[name], added=True)
        elif name not in after:
            yield Difference(inner, before[name], None, removed=True)
        else:
            yield from _compared(inner, before[name], after[name])


def _by_name(value: Any) -> Any:
    """Return a list of mappings with names as a mapping from these; anything else unchanged."""
    if not isinstance(value, list) or not value:
        return value
    names = [item.get("name") or item.get("label") if isinstance(item, dict) else None for item in value]
    return dict(zip(names, value, strict=True)) if all(names) and len(set(names)) == len(names) else value


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(one)}" for key, one in value.items()) + "}"
    return "null" if value is None else shown(value)
