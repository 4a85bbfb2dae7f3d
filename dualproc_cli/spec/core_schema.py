"""The core schema of YAML 1.2: what an unquoted scalar means, and what YAML 1.1 would have taken it for.

PyYAML reads YAML 1.1, where ``no`` is false, ``010`` is 8 and ``1:30`` is 90.
See https://yaml.org/spec/1.2.2/#103-core-schema.
"""

import re
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

TAG = "tag:yaml.org,2002:"
# The pattern of each kind, and the characters that it may start with ("" for an empty scalar).
KINDS = {
    "null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "int": (r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    "float": (
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
}


class CoreLoader(yaml.SafeLoader):
    """Gives unquoted scalars the tags of the core schema; ``<<`` still merges, as in YAML 1.1."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # instead of those of YAML 1.1  # noqa: RUF012


CoreLoader.add_implicit_resolver(TAG + "merge", re.compile(r"^<<$"), ["<"])
for _kind, (_pattern, _first) in KINDS.items():
    CoreLoader.add_implicit_resolver(TAG + _kind, re.compile(rf"^{_pattern}$"), _first)


def convert(kind: str, text: str) -> bool | int | float | None:
    """Return the value of a scalar of a kind.

    Raises:
        ValueError: the text is not of this kind.
    """
    pattern, _ = KINDS[kind]
    if not re.fullmatch(pattern, text):
        raise ValueError(text)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text[2:], 8 if text[1] == "o" else 16) if text[1:2] in ("o", "x") else int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def in_yaml_1_1(text: str) -> Any:
    """Return what YAML 1.1 takes an unquoted scalar for; dates and whatever it cannot convert are text."""
    tag = Resolver().resolve(yaml.ScalarNode, text, (True, False))
    if tag.removeprefix(TAG) not in KINDS:
        return text
    try:
        return SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, IndexError):
        return text
