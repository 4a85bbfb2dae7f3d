"""What a model is, by its own configuration: its class, its scheduler, whether it was distilled.

Nothing large is read and nothing is imported for it, so that a spec is checked within a second.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from dualproc_cli.known_models.catalog import known_shapes, shape_folder

# Dotted names, such as scheduler.shift, to values; empty if nothing is known of the model.
Facts: TypeAlias = dict[str, Any]
PARTS = ("scheduler", "transformer", "unet", "vae")  # those that tell what a pipeline is
MAX_BYTES = 1024 * 1024  # of a configuration
WAIT = 3  # seconds that the hub has to answer


def generator_facts(model: str, revision: str | None, fetch: bool = True) -> Facts:
    """Return the facts of a diffusers pipeline.

    They are ``pipeline``, its class; what else its index says, as ``index.KEY``; the class of each of `PARTS`
    under its name, and what its configuration says, as ``PART.KEY``. The hub is asked only with ``fetch``.
    """
    read = _reader(model, revision, fetch)
    index = read("model_index.json")
    facts: Facts = {f"index.{key}": value for key, value in index.items() if not isinstance(value, list)}
    if "_class_name" in index:
        facts["pipeline"] = index["_class_name"]
    for part in PARTS:
        entry = index.get(part)
        if isinstance(entry, list) and len(entry) == 2 and entry[1]:
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            facts[part] = entry[1]
            facts |= _flat(read(f"{part}/{name}"), part)
    return facts


def vlm_facts(model: str, revision: str | None, fetch: bool = True) -> Facts:
    """Return what the configuration of a transformers model says, of its parts too: ``vision_config.KEY``."""
    return _flat(_reader(model, revision, fetch)("config.json"), "")


def _flat(config: Mapping[str, Any], prefix: str) -> Facts:
    facts: Facts = {}
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else key
        facts |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return facts


def _reader(model: str, revision: str | None, fetch: bool) -> Callable[[str], dict[str, Any]]:
    """Return what reads a file of the model: in its folder, the hub's cache, the package, or from the hub."""
    folder = Path(os.path.expanduser(model))
    if folder.is_dir():
        return lambda file: _read(folder / file)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        return lambda file: {}
    if model in known_shapes():
        shape = shape_folder(model)
        return lambda file: _read(_cached(model, revision, file) or shape / file)
    reachable = fetch

    def read(file: str) -> dict[str, Any]:
        nonlocal reachable
        path = _cached(model, revision, file)
        if path is not None:
            return _read(path)
        if not reachable:
            return {}
        found = _fetched(model, revision, file)
        reachable = found is not None
        return found or {}

    return read


def _cached(model: str, revision: str | None, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # takes a while, and the miniature needs no hub

    try:
        found = try_to_load_from_cache(model, file, revision=revision)
    except ValueError:  # no name that a repository could have
        return None
    return Path(found) if isinstance(found, str) else None


def _fetched(model: str, revision: str | None, file: str) -> dict[str, Any] | None:
    """Ask the hub for a small file, once: its client would retry for half a minute without a network."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    try:
        url = hf_hub_url(model, file, revision=revision)
        answer = get_session().get(url, headers=build_hf_headers(), timeout=WAIT, follow_redirects=True)
        return _parsed(answer.raise_for_status().content)
    except Exception:  # whatever is wrong with the hub or the name is told when the model is loaded
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_bytes()) if path.stat().st_size <= MAX_BYTES else {}
    except OSError:
        return {}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data) if len(data) <= MAX_BYTES else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
