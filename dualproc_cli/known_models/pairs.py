"""Generators and VLMs that suit each other, from ``pairs.yaml``. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dualproc_cli.known_models.catalog import parameter_counts

PAIRS = Path(__file__).with_name("pairs.yaml")
BYTES = 2  # per parameter, in bfloat16


@dataclass(frozen=True)
class Pair:
    """A generator and a VLM that suit each other.

    Attributes:
        generator: its name on the hub.
        vlm: its name on the hub.
        generator_licence: its licence, as its model card states it.
        vlm_licence: likewise.
        weights_gib: size of all components of both in bfloat16; a step needs more, depending on the spec.
        why: the reason for the pair.
    """

    generator: str
    vlm: str
    generator_licence: str
    vlm_licence: str
    weights_gib: float
    why: str


def licence_of(model: str) -> str | None:
    """Return the licence of a model by its name, if it is known here."""
    return _data()["licences"].get(model)


def recommended_pairs() -> list[Pair]:
    """Return the pairs, in the order of the file."""
    data = _data()
    licences = data["licences"]
    return [
        Pair(
            generator=entry["generator"],
            vlm=entry["vlm"],
            generator_licence=licences[entry["generator"]],
            vlm_licence=licences[entry["vlm"]],
            weights_gib=round(_gib(entry["generator"]) + _gib(entry["vlm"]), 1),
            why=entry["why"],
        )
        for entry in data["pairs"]
    ]


def _data() -> dict[str, Any]:
    return yaml.safe_load(PAIRS.read_text("utf-8"))


def _gib(repo: str) -> float:
    return sum(parameter_counts()[repo].values()) * BYTES / 2**30
