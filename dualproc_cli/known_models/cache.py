"""The models in the local Hugging Face cache that could be used, judging by their configurations."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CacheNotFound, HFCacheInfo, scan_cache_dir

from dualproc_cli.known_models.matrix import read_matrix

Kind = Literal["generator", "vlm"]


@dataclass(frozen=True)
class CachedModel:
    """A model that is on this machine.

    Attributes:
        repo: its repository on the hub.
        kind: ``generator`` or ``vlm``.
        name: the class of a diffusers pipeline, or the model type of a transformers model.
        size: bytes on disk, of all its revisions.
    """

    repo: str
    kind: Kind
    name: str
    size: int


def cached_models() -> list[CachedModel]:
    """List the text-to-image pipelines and image-text-to-text models in the cache, by name."""
    try:
        cache: HFCacheInfo = scan_cache_dir()
    except CacheNotFound:
        return []
    found = []
    for repo in sorted(cache.repos, key=lambda entry: entry.repo_id):
        if repo.repo_type != "model":
            continue
        newest = sorted(repo.revisions, key=lambda revision: -revision.last_modified)
        usable = next((known for revision in newest for known in _usable(revision.snapshot_path)), None)
        if usable is not None:
            found.append(CachedModel(repo.repo_id, *usable, repo.size_on_disk))
    return found


def _usable(folder: Path) -> Iterator[tuple[Kind, str]]:
    """Yield the kind and class of the model in ``folder``. The imports take seconds, so they are here."""
    if (index := _read(folder / "model_index.json")) is not None:
        from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

        listed = {kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
        tried = {f"{entry.name}Pipeline" for entry in read_matrix() or () if entry.kind == "generator"}
        if (name := index.get("_class_name")) in listed | tried:
            yield "generator", name
    elif (config := _read(folder / "config.json")) is not None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        if (name := config.get("model_type", "")) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            yield "vlm", name


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
