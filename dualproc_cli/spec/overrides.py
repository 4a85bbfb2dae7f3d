"""``--set key.path=value``: any key of a spec from the command line, the value in YAML."""

from typing import Any

from dualproc_cli.printable import is_utf8
from dualproc_cli.spec.faults import Fault, Place, SpecError, dotted, shortened
from dualproc_cli.spec.source import MAX_DEPTH, Entry, Tree, read_yaml

ORIGIN = "--set"


def override(tree: Tree, setting: str) -> list[Fault]:
    """Put one setting into the tree.

    Unknown keys are put in like any other; validation reports them as coming from ``--set``.

    Args:
        tree: the spec's values; changed in place.
        setting: ``key.path=value``; a number in the path is an index into a list, from 0.

    Returns:
        The faults of the setting: the spec has no such place, or the value is not YAML.
    """
    place = Place(f"{ORIGIN} {shortened(setting)}")
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return [Fault(place, "", "cannot be read", "key.path=value, such as learn.steps=50")]
    if not is_utf8(setting):
        return [Fault(place, "", "is not UTF-8", "text in the encoding of your terminal")]
    if len(parts) > MAX_DEPTH:
        return [Fault(place, "", f"is nested more than {MAX_DEPTH} levels deep", "a key of the spec")]
    try:
        value, faults = read_yaml(text, lambda mark: place, ORIGIN)
    except SpecError as error:
        return error.faults
    if faults:
        return faults

    path: tuple[str | int, ...] = ()
    container = tree.data
    for part in parts[:-1]:
        step = _step(container, part)
        if step is None:
            return [_no_such_place(place, path, container, part)]
        path = (*path, step)
        if isinstance(container, dict) and container.get(part) is None:
            container[part] = {}
            tree.entries[path] = Entry(place, place, ORIGIN)
        container = container[step]
    last = _step(container, parts[-1])
    if last is None:
        return [_no_such_place(place, path, container, parts[-1])]
    path = (*path, last)
    container[last] = value.data
    tree.entries = {at: entry for at, entry in tree.entries.items() if at[: len(path)] != path}
    tree.entries |= {path + at: entry for at, entry in value.entries.items()}
    return []


def _step(container: Any, part: str) -> str | int | None:
    """Return ``part`` as a key or an index of ``container``; None if it cannot be one."""
    if isinstance(container, dict):
        return part
    if isinstance(container, list) and part.isdecimal() and part.isascii() and int(part) < len(container):
        return int(part)
    return None


def _no_such_place(place: Place, path: tuple[str | int, ...], container: Any, part: str) -> Fault:
    if isinstance(container, list):
        expected = (
            f"an index from 0 to {len(container) - 1}"
            if container
            else "a value for the list itself: it is empty"
        )
        return Fault(place, dotted(path), f"is a list without an item {shortened(part)}", expected)
    return Fault(
        place, dotted(path), f"is not a mapping and has no key {shortened(part)}", "a key of the spec"
    )
