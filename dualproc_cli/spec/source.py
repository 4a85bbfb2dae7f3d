"""Reading YAML text as plain values whose positions are known.

Unquoted scalars mean what they mean in YAML 1.2, see `dualproc_cli.spec.core_schema`. Duplicate keys, foreign
tags and documents whose aliases expand too far are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from dualproc_cli.spec.core_schema import KINDS, TAG, CoreLoader, convert
from dualproc_cli.spec.faults import Fault, KeyPath, Place, SpecError, dotted, shortened

MAX_DEPTH = 24  # levels of nesting; the language has five
MAX_EXPANDED = 500_000  # characters and nodes once every alias is written out
MAX_NUMBER = 100  # characters; converting a much longer number takes Python a while

_CONVERTED = {TAG + kind for kind in KINDS}
_AS_TEXT = {TAG + kind for kind in ("str", "timestamp", "value", "merge")}
_MERGE = TAG + "merge"
_RIDDLE = "but got '?'"  # ends what PyYAML says of a question mark in braces or brackets

Locate: TypeAlias = Callable[[yaml.Mark | None], Place]


@dataclass(frozen=True)
class Entry:
    """Where a value of a spec comes from.

    Attributes:
        key: the position of its key.
        value: the position of the value itself.
        origin: ``spec``, ``preset`` or ``--set``.
        text: a scalar as it was written; None for mappings and lists.
    """

    key: Place
    value: Place
    origin: str
    text: str | None = None


@dataclass
class Tree:
    """Plain values and where each of them comes from.

    Attributes:
        data: dict, list, str, int, float, bool or None.
        entries: the entry of each value, by its path.
    """

    data: Any = None
    entries: dict[KeyPath, Entry] = field(default_factory=dict)

    def entry(self, path: KeyPath) -> Entry:
        """Return the entry at ``path``, or that of the nearest enclosing value."""
        while path not in self.entries:
            path = path[:-1]
        return self.entries[path]


def read_yaml(text: str, locate: Locate, origin: str) -> tuple[Tree, list[Fault]]:
    """Read a YAML text. Also return the faults that leave the rest readable, such as duplicate keys.

    Args:
        text: one YAML document.
        locate: turns a position in the text into a place; None stands for the beginning.
        origin: the name of this source, "spec" or "--set".

    Raises:
        SpecError: the text is not YAML, or its aliases expand too far.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        problem, expected = ": ".join(part for part in (error.context, error.problem) if part), "valid YAML"
        if problem.endswith(_RIDDLE):
            problem = "a question mark cannot stand in an unquoted text between braces or brackets"
            expected = 'quotes around the text, as in {question: "Is it night?"}'
        place = locate(error.problem_mark or error.context_mark)
        raise SpecError([Fault(place, "", problem, expected)]) from error
    except ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark(
            "", error.position, before.count("\n"), error.position - before.rfind("\n") - 1, None, 0
        )
        problem = f"the character U+{error.character:04X} is not allowed"
        raise SpecError([Fault(locate(mark), "", problem, "printable text")]) from error
    builder = _Builder(locate, origin)
    if root is None:
        builder.tree.entries[()] = Entry(locate(None), locate(None), origin)
    else:
        builder.tree.data = builder.build((), root, root)
    return builder.tree, builder.faults


class _Loader(CoreLoader):
    """Composes nodes, and refuses a document as soon as it is nested or expanded too far.

    A node is measured when it is complete; an alias to an incomplete node stands inside that node.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.measures: dict[yaml.Node, tuple[int, int]] = {}  # node -> levels, expanded size

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        start: Any = event.start_mark
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", start)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        if node not in self.measures:
            if isinstance(event, yaml.AliasEvent):
                raise ComposerError(None, None, f"alias *{event.anchor} stands inside itself", start)
            self.measures[node] = self._measure(node)
        levels, size = self.measures[node]
        if self.depth + levels > MAX_DEPTH or size > MAX_EXPANDED:
            raise ComposerError(None, None, "too large once its aliases are written out", start)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 1 + len(node.value)
        children = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        measures = [self.measures[child] for child in children]
        return 1 + max((levels for levels, _ in measures), default=0), 1 + sum(size for _, size in measures)


class _Builder:
    """Turns nodes into values. Each alias becomes a value of its own, so an override changes one place."""

    def __init__(self, locate: Locate, origin: str) -> None:
        self.locate, self.origin = locate, origin
        self.tree = Tree()
        self.faults: list[Fault] = []

    def build(self, path: KeyPath, key: yaml.Node, node: yaml.Node) -> Any:
        text = node.value if isinstance(node, yaml.ScalarNode) else None
        self.tree.entries[path] = Entry(
            self.locate(key.start_mark), self.locate(node.start_mark), self.origin, text
        )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(path, node)
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return [self.build((*path, index), item, item) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            pairs = self._pairs(path, node)
            return {name: self.build((*path, name), *pair) for name, pair in pairs.items()}
        self._foreign_tag(path, node)
        return None

    def _scalar(self, path: KeyPath, node: yaml.ScalarNode) -> Any:
        if node.tag in _AS_TEXT:
            return self._whole_characters(path, node)
        if node.tag not in _CONVERTED:
            self._foreign_tag(path, node)
        elif len(node.value) > MAX_NUMBER:
            self._fault(
                path,
                node,
                f"is too long for a number: {shortened(node.value)}",
                "a number, or text in quotes",
            )
        else:
            kind = node.tag.removeprefix(TAG)
            try:
                return convert(kind, node.value)
            except ValueError:  # an explicit tag that does not fit, such as !!int x
                self._fault(
                    path, node, f"cannot be read as {kind}: {shortened(node.value)}", f"a valid {kind}"
                )
        return None

    def _pairs(self, path: KeyPath, mapping: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return each key's nodes; own keys win over merged ones, and earlier merges over later ones."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in mapping.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(source, yaml.MappingNode):
                        merged = self._pairs(path, source) | merged
                    else:
                        self._fault(
                            (*path, "<<"),
                            source,
                            "merges something that is not a mapping",
                            "an alias of a mapping",
                        )
            elif not isinstance(key, yaml.ScalarNode):
                self._fault(path, key, "has a list or a mapping as a key", "text before the colon")
            elif (name := self._whole_characters(path, key)) in own:
                first = self.locate(own[name][0].start_mark)
                self._fault((*path, name), key, f"is given twice, first at {first}", "every key once")
            else:
                own[name] = (key, value)
        return merged | own

    def _whole_characters(self, path: KeyPath, node: yaml.ScalarNode) -> str:
        """Return the node's text. JSON escapes rare characters as surrogate pairs, which are joined."""
        halves = node.value.encode("utf-16-le", "surrogatepass")
        try:
            return halves.decode("utf-16-le")
        except UnicodeDecodeError:
            self._fault(path, node, "escapes half of a character", "the whole character")
            return halves.decode("utf-16-le", "replace")

    def _foreign_tag(self, path: KeyPath, node: yaml.Node) -> None:
        self._fault(path, node, f"has the tag {shortened(node.tag)}", "plain YAML")

    def _fault(self, path: KeyPath, node: yaml.Node, problem: str, expected: str) -> None:
        self.faults.append(Fault(self.locate(node.start_mark), dotted(path), problem, expected))
