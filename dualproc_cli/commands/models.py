"""``dualproc models``: models that were tried, models in the local cache, recommended pairs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from dualproc_cli.commands.options import AsJson
from dualproc_cli.terminal import echo

if TYPE_CHECKING:
    from dualproc_cli.known_models.cache import CachedModel
    from dualproc_cli.known_models.matrix import Tried
    from dualproc_cli.known_models.pairs import Pair


def models(as_json: AsJson = False) -> None:
    """List the models that were tried, those in the local Hugging Face cache, and recommended pairs.

    Example: dualproc models --json
    """
    from dualproc_cli.known_models.cache import cached_models
    from dualproc_cli.known_models.matrix import read_matrix
    from dualproc_cli.known_models.pairs import recommended_pairs

    tried, cached, pairs = read_matrix(), cached_models(), recommended_pairs()
    if as_json:
        found = {
            "tried": None if tried is None else [{**asdict(entry), "works": entry.works} for entry in tried],
            "cached": [asdict(entry) for entry in cached],
            "pairs": [asdict(pair) for pair in pairs],
        }
        echo(json.dumps(found, ensure_ascii=False))
        return
    sections = [_tried(tried), _cached(cached), _pairs(pairs)]
    echo("\n\n".join("\n".join(lines) for lines in sections))


def _tried(tried: list["Tried"] | None) -> Iterator[str]:
    from dualproc_cli.known_models.matrix import PASSED, REFUSED

    if not tried:
        yield "This installation has no table of tried models."
        return
    yield "Tried on small random models:"
    for entry in sorted(tried, key=lambda entry: (entry.kind, entry.name)):
        faults = [f"{check}: {found}" for check, found in entry.checks.items() if found != PASSED]
        verdict = "works" if entry.works else "; ".join(faults) or REFUSED
        workarounds = f" (with: {', '.join(entry.workarounds)})" if entry.workarounds else ""
        note = f"; {entry.reason}" if entry.reason else ""
        yield f"  {entry.kind:9}  {entry.name}: {verdict}{workarounds}{note}"


def _cached(cached: list["CachedModel"]) -> Iterator[str]:
    if not cached:
        yield "No usable model is in the local Hugging Face cache."
        return
    yield "In the local Hugging Face cache:"
    for entry in cached:
        yield f"  {entry.kind:9}  {entry.repo}: {entry.name}, {entry.size / 2**30:.1f} GiB"


def _pairs(pairs: list["Pair"]) -> Iterator[str]:
    yield "Recommended pairs, by shape and size (weights in bfloat16); not yet tried with the real weights:"
    for pair in pairs:
        yield f"  {pair.weights_gib:5.1f} GiB  {pair.generator} ({pair.generator_licence})"
        yield f"{'':13}{pair.vlm} ({pair.vlm_licence})"
        yield f"{'':13}{pair.why}"
