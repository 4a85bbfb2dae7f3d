"""The keys that a spec may have at each place, from the JSON Schema."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from dualproc_cli.spec.canonical import json_schema
from dualproc_cli.spec.faults import KeyPath, did_you_mean


def keys_at(path: KeyPath, data: Any) -> dict[str, str]:
    """Return the keys of the mapping at ``path`` with their descriptions.

    Args:
        path: the path of a mapping in the spec.
        data: the spec's values, which select the members of unions.
    """
    schema = json_schema()
    node = _resolve(*_node(path, data, schema), schema)
    # A key without a description of its own has that of its model.
    properties = {
        key: value if "description" in value else _resolve(value, None, schema)
        for key, value in node["properties"].items()
    }
    return {key: value["description"] for key, value in properties.items()}


def types_at(path: KeyPath, data: Any) -> tuple[str, ...]:
    """Return the values that ``type`` may have in the mapping at ``path``."""
    node, _ = _node(path, data, json_schema())
    return tuple(_tagged(node)["discriminator"]["mapping"])


def hint(word: str, siblings: list[str]) -> str:
    """Return ``; did you mean ...?`` for an unknown key: the same word elsewhere, or a similar sibling."""
    elsewhere = next((key for key in _all_keys() if f".{key}".endswith(f".{word}")), None)
    return f"; did you mean '{elsewhere}'?" if elsewhere else did_you_mean(word, siblings)


def _node(path: KeyPath, data: Any, schema: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the schema at ``path``, references not resolved, and the spec's value there."""
    node = schema
    for part in path:
        node = _resolve(node, data, schema)
        data = data[part]
        if isinstance(part, int):
            node = node["items"]
        elif "properties" in node:
            node = node["properties"][part]
        else:  # the visual prompts: any name, one kind of value
            node = node.get("additionalProperties") or next(iter(node["patternProperties"].values()))
    return node, data


def _resolve(node: dict[str, Any], data: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping, for a node that may be a reference, a union or optional."""
    if "oneOf" in node:
        node = {"$ref": _tagged(node)["discriminator"]["mapping"][data["type"]]}
    elif "anyOf" in node:
        node = next(choice for choice in node["anyOf"] if choice.get("type") != "null")
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _tagged(node: dict[str, Any]) -> dict[str, Any]:
    """Return the union of mappings told apart by ``type``: the node itself, or a member of it."""
    return node if "discriminator" in node else next(c for c in node["oneOf"] if "discriminator" in c)


@cache
def _all_keys() -> tuple[str, ...]:
    """Return the dotted keys of a spec, those of lists and unions left out."""
    return tuple(_dotted_keys(json_schema(), json_schema()))


def _dotted_keys(node: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.get("properties", {}).items():
        yield prefix + key
        if "$ref" in value:
            yield from _dotted_keys(_resolve(value, None, schema), schema, f"{prefix}{key}.")
