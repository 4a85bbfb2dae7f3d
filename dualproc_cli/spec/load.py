"""Loading a spec file: a validated, resolved control spec, with the origin of each value."""

import copy
import functools
import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dualproc_cli.files import require_regular
from dualproc_cli.spec.control import ControlSpec
from dualproc_cli.spec.core_schema import in_yaml_1_1
from dualproc_cli.spec.faults import Fault, KeyPath, Place, SpecError, dotted, shown
from dualproc_cli.spec.models import GeneratorSpec
from dualproc_cli.spec.overrides import override
from dualproc_cli.spec.presets import Preset, fill_in
from dualproc_cli.spec.relations import relations
from dualproc_cli.spec.source import Tree, read_yaml
from dualproc_cli.spec.translate import translate
from dualproc_cli.spec.weights_files import adapter_file

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class LoadedSpec:
    """A control spec and where it came from.

    Attributes:
        spec: the spec, with every default and preset filled in.
        folder: the folder that paths of pictures are relative to.
        text: the file's text, unchanged.
        origins: ``spec``, ``preset``, ``default`` or ``--set``, for each value by its dotted key.
        source: the spec's file, or the bundle that holds the spec, for error messages.
        places: the position of each value by its path; empty for a spec from a bundle.
        presets: the presets that were chosen, by the part of the spec that names the model; empty for a spec
            from a bundle.
    """

    spec: ControlSpec
    folder: Path
    text: str
    origins: dict[str, str]
    source: str = ""
    places: Mapping[KeyPath, Place] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)

    @property
    def generator(self) -> GeneratorSpec:
        """The spec's generator, with the paths of its adapters' files where they lie."""
        generator = self.spec.generator
        placed = tuple(
            one.model_copy(update={"path": str(self.folder / adapter_file(one.path))})
            for one in generator.adapters
        )
        return generator.model_copy(update={"adapters": placed})

    @property
    def overrides(self) -> dict[str, Any]:
        """The values that ``--set`` gave, by dotted key."""
        data = self.spec.model_dump(mode="json")
        given = (path for path in leaves(data) if self.origins.get(dotted(path)) == "--set")
        return {dotted(path): _at(path, data) for path in given}

    def fault(self, path: KeyPath, problem: str, expected: str) -> Fault:
        """Return a fault of the value at ``path``, placed there or at the nearest enclosing value."""
        written = (path[:cut] for cut in range(len(path), -1, -1) if path[:cut] in self.places)
        at = next(written, None)
        place = Place(self.source) if at is None else self.places[at]
        return Fault(place, dotted(path), problem, expected)


def load_spec(path: Path, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Read, complete and validate a spec.

    Args:
        path: a YAML file.
        overrides: ``key.path=value`` each, the value in YAML; they replace values of the file.

    Raises:
        SpecError: lists every fault of the file and of the overrides, each on a line of its own:
            ``file:line:column: key: problem (expected ...)``.
    """
    text = _read(path)

    def locate(mark: yaml.Mark | None) -> Place:
        return Place(str(path), mark.line + 1, mark.column + 1) if mark else Place(str(path), 1, 1)

    tree, faults = read_yaml(text, locate, "spec")
    if not isinstance(tree.data, dict):
        expected = "keys such as name, prompts and questions; `dualproc init` writes a spec to start from"
        raise SpecError([*faults, Fault(locate(None), "", f"the file is {shown(tree.data)}", expected)])
    for setting in overrides:
        faults += override(tree, setting)
    chosen, misfits = fill_in(tree)
    faults += misfits
    _take_answers_as_written(tree)
    _warn_of_other_meanings(tree)

    spec, wrong = _validate(tree)
    faults += [fault for _, fault in wrong if fault]
    more = sum(fault is None for _, fault in wrong)
    for at, problem, expected in relations(_without([at for at, _ in wrong], tree.data), path.parent):
        faults.append(Fault(tree.entry(at).value, dotted(at), problem, expected))
    if spec is None or faults:
        raise SpecError(faults, more)
    places = {at: entry.value for at, entry in tree.entries.items()}
    return LoadedSpec(spec, path.parent, text, _origins(spec, tree), str(path), places, chosen)


def _read(path: Path) -> str:
    def refuse(problem: str, expected: str, line: int = 0, column: int = 0) -> SpecError:
        return SpecError([Fault(Place(str(path), line, column), "", problem, expected)])

    try:
        require_regular(path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise refuse(f"cannot be read: {reason}", "a control spec in YAML") from error
    if len(data) > MAX_BYTES:
        raise refuse("is too large", f"at most {MAX_BYTES // 1024} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].split(b"\n")[-1].decode("utf-8", "ignore")
        number = data.count(b"\n", 0, error.start) + 1
        problem = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise refuse(problem, "text saved as UTF-8", number, len(line) + 1) from error


def _take_answers_as_written(tree: Tree) -> None:
    """Turn answers back into text: YAML reads true as a boolean, and 12 as a number."""
    for path, entry in tree.entries.items():
        is_answer = path[0:1] == ("questions",) and (
            path[2:] == ("answer",) or path[2:3] == ("alternatives",)
        )
        if is_answer and isinstance(_at(path, tree.data), bool | int | float):
            _at(path[:-1], tree.data)[path[-1]] = entry.text


def _warn_of_other_meanings(tree: Tree) -> None:
    """Say which numbers would have been others in YAML 1.1, such as 010."""
    for path, entry in tree.entries.items():
        value = _at(path, tree.data) if entry.text else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            before = in_yaml_1_1(entry.text or "")
            if isinstance(before, int | float) and before != value and value == value:
                message = "%s: %s: %s is %s, as YAML 1.2 has it; YAML 1.1 had %s"
                logger.warning(message, entry.value, dotted(path), entry.text, shown(value), shown(before))


def _validate(tree: Tree) -> tuple[ControlSpec | None, list[tuple[KeyPath, Fault | None]]]:
    try:
        return ControlSpec.model_validate(tree.data), []
    except ValidationError as error:
        return None, list(translate(error, tree))


def _without(paths: list[KeyPath], data: dict[str, Any]) -> dict[str, Any]:
    """Copy ``data`` without the values at ``paths``; list items become None, visual prompts become empty."""
    data = copy.deepcopy(data)
    for path in sorted(paths, key=len, reverse=True):  # inner values before those around them
        container = _at(path[:-1], data)
        if path[:-1] == ("visual_prompts",):
            container[path[-1]] = {}
        elif isinstance(container, dict):
            container.pop(path[-1], None)
        else:
            container[path[-1]] = None
    return data


def _at(path: KeyPath, data: Any) -> Any:
    return functools.reduce(operator.getitem, path, data)


def _origins(spec: ControlSpec, tree: Tree) -> dict[str, str]:
    """Return the origin of every leaf. A list of texts is one leaf; any item from --set makes it --set."""
    origins = dict.fromkeys(leaves(spec.model_dump()), "default")
    for path, entry in tree.entries.items():
        for cut in range(len(path), 0, -1):
            if path[:cut] in origins and origins[path[:cut]] != "--set":
                origins[path[:cut]] = entry.origin
    return {dotted(path): origin for path, origin in origins.items()}


def leaves(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the paths of all values except mappings and lists of mappings, in the spec's order."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path
