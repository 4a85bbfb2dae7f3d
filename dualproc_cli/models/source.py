"""Finding the model that a spec names: inside the package, in a folder, or on the Hugging Face hub.

The hub's client is imported only where a model is on the hub: it takes a third of a short command's time.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safetensors import safe_open

from dualproc_cli import miniature
from dualproc_cli.errors import UserError
from dualproc_cli.models.hub import hub_reachable
from dualproc_cli.spec import GeneratorSpec, VlmSpec
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.spec.weights_files import weights_fault

Part = Literal["generator", "vlm", "measure"]
# Everything in a repository except its weights.
CONFIGURATION = ["*.json", "*.txt", "*.jinja", "*.model", "**/*.json", "**/*.txt", "**/*.model"]


@dataclass(frozen=True)
class ModelSource:
    """Where a spec's model is.

    Attributes:
        part: the part of the spec that names it.
        model: its name in the spec.
        wanted: the revision in the spec; None for the newest.
        kind: ``miniature`` (embedded), ``folder`` (on this machine) or ``hub`` (a repository).
        folder: the folder with its files; None for a repository.
        file: the single file with its weights. What else is said is then about its ``base``.
    """

    part: Part
    model: str
    wanted: str | None
    kind: Literal["miniature", "folder", "hub"]
    folder: Path | None
    file: Path | None = None

    @property
    def location(self) -> str:
        """The argument of ``from_pretrained``: a folder or the name of a repository."""
        return self.model if self.folder is None else str(self.folder)

    @property
    def bytes(self) -> float:
        """The size of its weights; infinite if they are not all on this machine."""
        if self.folder is None:
            return math.inf
        files = [*self.folder.rglob("*.safetensors"), *([self.file] if self.file else [])]
        return sum(file.stat().st_size for file in files)

    @property
    def revision(self) -> str | None:
        """The revision of the weights: a repository's commit, or a digest of the miniature's weights.

        It is None for a folder or a file, and for a repository that is not in the local cache.
        """
        if self.kind == "miniature":
            return miniature.revision(self.part)
        if self.kind == "folder" or self.file:
            return None
        from huggingface_hub import try_to_load_from_cache

        index = "model_index.json" if self.part == "generator" else "config.json"
        cached = try_to_load_from_cache(self.model, index, revision=self.wanted)
        return Path(cached).parent.name if isinstance(cached, str) else None  # snapshots/COMMIT/FILE

    @property
    def local_only(self) -> bool:
        """The argument ``local_files_only`` of ``from_pretrained``: the hub cannot be reached."""
        return self.kind == "hub" and not hub_reachable()

    def configuration(self) -> Path:
        """Return the folder with the model's configuration; a repository's is downloaded without its weights.

        Raises:
            Exception: any error of the hub's client when it cannot download.
        """
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                self.model,
                revision=self.wanted,
                allow_patterns=CONFIGURATION,
                local_files_only=self.local_only,
            )
        )


def find_model(spec: GeneratorSpec | VlmSpec) -> ModelSource:
    """Find the model of a part of a spec; nothing is downloaded.

    Raises:
        UserError: the miniature is damaged, or its revision is not the one in the spec; or a single file is
            not one of safetensors.
        FileNotFoundError: the name cannot be a repository's, and there is no such folder.
    """
    part: Part = "generator" if isinstance(spec, GeneratorSpec) else "vlm"
    if spec.model == MINIATURE:
        return ModelSource(part, spec.model, spec.revision, "miniature", _embedded(part, spec.revision))
    local = _local(spec.model)
    if isinstance(spec, GeneratorSpec) and local.is_file():
        return _single_file(spec, local)
    return _folder_or_hub(part, spec.model, spec.revision)


def find_judge(model: str, revision: str | None) -> ModelSource:
    """Find the model of a measure, a folder or a repository; nothing is downloaded.

    Raises:
        FileNotFoundError: the name cannot be a repository's, and there is no such folder.
    """
    return _folder_or_hub("measure", model, revision)


def _folder_or_hub(part: Part, model: str, revision: str | None) -> ModelSource:
    local = _local(model)
    if local.is_dir():
        return ModelSource(part, model, revision, "folder", local)
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise FileNotFoundError("no such folder") from error
    return ModelSource(part, model, revision, "hub", None)


def _local(model: str) -> Path:
    return Path(os.path.expanduser(model))  # Path's own raises an error for an unknown user


def _single_file(spec: GeneratorSpec, file: Path) -> ModelSource:
    if problem := weights_fault(file):
        raise UserError(
            f"generator.model: {file}: {problem}; expected a diffusers model, or one .safetensors file"
        )
    base = spec.base or _base(file)
    return replace(find_model(spec.model_copy(update={"model": base})), file=file)


def _base(file: Path) -> str:
    """Return the repository in which diffusers looks for a single file's configuration, by its tensors."""
    import torch  # slow, and needed for single files alone
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    with safe_open(file, framework="pt") as weights:
        names = weights.keys()
        shapes = {name: torch.empty(weights.get_slice(name).get_shape(), device="meta") for name in names}
    return fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]


def require_models(*specs: GeneratorSpec | VlmSpec | None) -> None:
    """Check that each model is in a folder, in the local cache or on a hub that can be reached.

    It takes about a second at most, and imports no torch: ask before anything is loaded.

    Raises:
        UserError: a model is nowhere.
    """
    for spec in specs:
        if spec is None:
            continue
        part = "generator" if isinstance(spec, GeneratorSpec) else "vlm"
        try:
            source = find_model(spec)
        except FileNotFoundError as error:
            raise UserError(
                f"{part}.model: {spec.model}: no such folder (expected a hub id, a folder or {MINIATURE})"
            ) from error
        if source.local_only and source.revision is None:
            raise UserError(
                f"{part}.model: {spec.model}: the hub cannot be reached and the local cache has no copy; "
                "connect, or name a folder"
            )


def _embedded(part: Part, revision: str | None) -> Path:
    return (miniature.generator_folder if part == "generator" else miniature.vlm_folder)(revision)
