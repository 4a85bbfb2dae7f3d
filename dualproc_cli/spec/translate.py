"""Translating Pydantic's errors into faults: which key, what is wrong with it, what was expected."""

from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dualproc_cli.spec.core_schema import in_yaml_1_1
from dualproc_cli.spec.faults import MOST, Fault, KeyPath, did_you_mean, dotted, shown
from dualproc_cli.spec.fields import EXPECTED_OF_PATTERN
from dualproc_cli.spec.source import Tree
from dualproc_cli.spec.vocabulary import hint, keys_at, types_at

_MAPPING = "keys and values below it, or leave it out"
_EXPECTED = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_long": "at most {max_length}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
}
# The keys that hold unions, and how many names of members follow them in pydantic's location. * is any key.
_UNIONS: dict[KeyPath, int] = {
    ("visual_prompts", "*"): 1,
    ("learn", "adapter", "target_modules"): 1,
    ("learn", "where"): 1,
    ("learn", "noise_pool"): 1,
    ("learn", "gradient", "step"): 1,
    ("learn", "micro_batch"): 1,
    ("memory",): 1,
    ("evaluate", "measures", "*"): 2,
}
_AT_KEY = {"extra_forbidden", "missing", "union_tag_not_found"}


def translate(error: ValidationError, tree: Tree) -> Iterator[tuple[KeyPath, Fault | None]]:
    """Yield the path and the fault of every error, placed at the key or the value that is wrong.

    Only the first `MOST` in reading order are described; the fault of the others is None.
    """
    found = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # pydantic counts only the valid items, and each invalid one has its own error
        path, at_key = _path(detail)
        entry = tree.entry(path)
        found.append((entry.key if at_key else entry.value, path, detail))
    found.sort(key=lambda one: (not one[0].line, one[0]))
    for number, (place, path, detail) in enumerate(found):
        yield path, Fault(place, dotted(path), *_describe(detail, path, tree)) if number < MOST else None


def _path(detail: ErrorDetails) -> tuple[KeyPath, bool]:
    """Return the key path of an error, and whether the key itself is at fault rather than its value.

    Pydantic's location also names the member of a union that was tried, and ends in ``[key]`` for a key.
    """
    path: KeyPath = detail["loc"]
    if path[-1:] == ("[key]",):
        return path[:-1], True
    for key, members in _UNIONS.items():
        if len(path) > len(key) and all(part in (at, "*") for at, part in zip(path, key, strict=False)):
            path = path[: len(key)] + path[len(key) + members :]
    if detail["type"].startswith("union_tag"):
        path = (*path, "type")
    return path, detail["type"] in _AT_KEY


def _describe(detail: ErrorDetails, path: KeyPath, tree: Tree) -> tuple[str, str]:
    """Return what is wrong with a value, and what was expected."""
    value, limits = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(keys_at(path[:-1], tree.data))
            return "unknown key" + hint(str(path[-1]), known), "one of " + ", ".join(known)
        case "missing":
            return "is missing", _phrase(keys_at(path[:-1], tree.data)[str(path[-1])])
        case "union_tag_not_found":
            return "is missing", "one of " + ", ".join(types_at(path[:-1], tree.data))
        case "union_tag_invalid":
            return _none_of(limits["tag"], types_at(path[:-1], tree.data))
        case "literal_error":
            return _none_of(
                value, tuple(limits["expected"].replace("'", "").replace(" or ", ", ").split(", "))
            )
        case "string_type" if isinstance(value, bool | int | float):
            written = tree.entry(path).text or shown(value)
            return f"is {written}, which is not text in YAML", f'quotes around it: "{written}"'
        case "string_pattern_mismatch":
            return f"is {shown(value)}", EXPECTED_OF_PATTERN[limits["pattern"]]
        case "string_too_long":
            problem = f"has {len(value)} characters"
        case "too_short" | "too_long":
            problem = f"has {limits['actual_length']} items"
        case _:
            problem = f"is {shown(value)}{_remark(value)}"
    return problem, _EXPECTED.get(detail["type"], detail["msg"].removeprefix("Input should be ")).format(
        **limits
    )


def _none_of(value: object, choices: tuple[str, ...]) -> tuple[str, str]:
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"is {shown(value)}{near}", ("one of " if len(choices) > 1 else "") + ", ".join(choices)


def _remark(value: object) -> str:
    """Return what to know about a text that would have been something else in YAML 1.1, such as ``no``."""
    if not isinstance(value, str) or (before := in_yaml_1_1(value)) == value:
        return ""
    return f", which is text in YAML 1.2 and was {shown(before)} in YAML 1.1"


def _phrase(description: str) -> str:
    """Return a description in a form that continues a sentence."""
    first = description[0].lower() if description[1].islower() else description[0]
    return first + description[1:].rstrip(".")
