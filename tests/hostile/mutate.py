"""Hostile and broken variants of values, texts and bytes."""

import copy
import json
import random
from typing import Any

TEXTS = [
    "",
    " ",
    ".",
    "..",
    "../outside",
    "../../outside",
    "/outside",
    "~root/outside",
    "../secret.png",
    "pictures/../../secret.png",
    "C:\\outside",
    "file:///etc/hostname",
    "n" * 300,
    "n" * 5000,
    "a\x1b[2Jb",
    "a\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "a\u2028b\x85c",
    "a\nb",
    "a\0b",
    "\ufeff",
    "\ud83d",
    "[red]x[/blue]",
    "[/]",
    "{0} %s {{7*7}} ${HOME} $(touch ran) `touch ran`",
    "!!python/object/apply:os.system ['touch ran']",
    "__import__('os').system('touch ran')",
    "nan",
    "-o",
    "miniature",
    "é" * 70,
]
DEEP: Any = "deep"
for _ in range(60):
    DEEP = [DEEP]
VALUES = [
    *TEXTS,
    None,
    True,
    False,
    0,
    -1,
    -0.0,
    2**31,
    2**63,
    10**400,
    1e300,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [[]],
    {"": 0},
    {"type": "image", "path": "../secret.png"},
    ["a"] * 2000,
    DEEP,
]


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Return the paths of all values below ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inside for path in paths(item, (*at, key)))]


def changed_values(data: Any, rng: random.Random) -> Any:
    """Return a copy with one to three values replaced, removed, doubled or added."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice([path for path in paths(data) if path] or [()])
        if not path:
            return rng.choice(VALUES)
        inside = data
        for part in path[:-1]:
            inside = inside[part]
        match rng.randrange(5):
            case 0:
                del inside[path[-1]]
            case 1 if isinstance(inside, dict):
                inside[rng.choice(TEXTS)] = inside[path[-1]]
            case 1:
                inside.append(copy.deepcopy(rng.choice(inside)))
            case _:
                inside[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return data


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to four places flipped, cut, doubled, or overwritten by something else."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice([1, 1, 2, 8, 100, len(changed)]))
        match rng.randrange(6):
            case 0:
                changed[start:end] = b""
            case 1:
                changed[start:start] = changed[start:end]
            case 2:
                changed[start:end] = rng.randbytes(end - start)
            case 3:
                changed[start:start] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
            case 4:
                changed[start:end] = bytes([rng.choice([0, 0xFF, 0x7F, 0x80])]) * (end - start)
            case _ if start < len(changed):
                changed[start] ^= 1 << rng.randrange(8)
    return bytes(changed)


def as_json(data: Any) -> str:
    """Return ``data`` as YAML's JSON, also what JSON itself cannot hold."""
    return json.dumps(data).replace("NaN", ".nan").replace("Infinity", ".inf")
