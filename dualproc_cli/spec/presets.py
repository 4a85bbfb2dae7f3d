"""Defaults that depend on the generator, from ``presets.yaml``."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dualproc_cli.spec.faults import KeyPath, Place
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.spec.source import Entry, Tree

PRESETS = Path(__file__).with_name("presets.yaml")
ORIGIN = "preset"


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return the presets: the part of a spec that suits a model, by model id."""
    return yaml.safe_load(PRESETS.read_text("utf-8"))


def fill_in(tree: Tree) -> None:
    """Add the values of the generator's preset for the keys that the spec leaves out."""
    generator = tree.data.get("generator", {})
    model = generator.get("model", MINIATURE) if isinstance(generator, dict) else None
    if isinstance(model, str):
        _fill(tree, (), tree.data, presets().get(model, {}))


def _fill(tree: Tree, path: KeyPath, data: dict[str, Any], preset: dict[str, Any]) -> None:
    place = Place(str(PRESETS))
    for key, value in preset.items():
        if isinstance(value, dict):
            section = data.setdefault(key, {})
            if isinstance(section, dict):  # otherwise validation reports the fault
                _fill(tree, (*path, key), section, value)
        elif key not in data:
            data[key] = value
            tree.entries[(*path, key)] = Entry(place, place, ORIGIN)
