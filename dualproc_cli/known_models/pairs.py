"""Generators and VLMs that suit each other, from ``pairs.yaml``. No torch."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from dualproc_cli.known_models.catalog import parameter_counts

PAIRS = Path(__file__).with_name("pairs.yaml")
BYTES = 2  # of a parameter in bfloat16


@dataclass(frozen=True)
class Pair:
    """A generator and a VLM, by their hub names.

    Attributes:
        weights_gib: of both, all components, in bfloat16; what a step needs beside them depends on the spec.
        why: what speaks for it.
    """

    generator: str
    vlm: str
    generator_licence: str
    vlm_licence: str
    weights_gib: float
    why: str


def recommended_pairs() -> list[Pair]:
    """The pairs, in the order of the file."""
    data = yaml.safe_load(PAIRS.read_text("utf-8"))
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


def _gib(repo: str) -> float:
    return sum(parameter_counts()[repo].values()) * BYTES / 2**30
