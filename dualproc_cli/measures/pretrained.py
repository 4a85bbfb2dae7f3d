"""The models that measures judge by: what kind is needed, whether there is one, and loading it.

They are transformers' own classes. Code that comes with a model never runs, and only safetensors are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dualproc_cli.errors import UserError
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.models.source import ModelSource, find_judge
from dualproc_cli.spec.faults import did_you_mean, shortened, shown
from dualproc_cli.spec.model_facts import Facts, vlm_facts

if TYPE_CHECKING:  # a spec is checked without torch
    import torch
    from PIL.Image import Image
    from torch import Tensor

BATCH = 8  # pictures that a model sees at once
KEY = "evaluate.measures"


@dataclass(frozen=True)
class Kind:
    """What a model can do.

    Attributes:
        what: in words.
        example: a hub model of this kind.
        auto: transformers' class that loads it.
        mapping: transformers' table of the classes of each configuration.
        processor: transformers' class that loads what prepares its inputs.
        headless: whether a model with a head of another kind will do, since the head is left out.
    """

    what: str
    example: str
    auto: str
    mapping: str
    processor: str = "AutoImageProcessor"
    headless: bool = False


KindName: TypeAlias = Literal["detector", "depth", "segmenter", "image-text", "features"]
KINDS: dict[KindName, Kind] = {
    "detector": Kind(
        "a model that detects what a text names",
        "google/owlv2-base-patch16-ensemble",
        "AutoModelForZeroShotObjectDetection",
        "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",
        "AutoProcessor",
    ),
    "depth": Kind(
        "a model that estimates depth",
        "depth-anything/Depth-Anything-V2-Small-hf",
        "AutoModelForDepthEstimation",
        "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    ),
    "segmenter": Kind(
        "a model of semantic segmentation",
        "nvidia/segformer-b0-finetuned-ade-512-512",
        "AutoModelForSemanticSegmentation",
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    ),
    "image-text": Kind(
        "a model that compares pictures with texts",
        "google/siglip2-base-patch16-224",
        "AutoModelForZeroShotImageClassification",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        "AutoProcessor",
    ),
    "features": Kind(
        "a model of picture features",
        "facebook/dinov2-small",
        "AutoModel",
        "MODEL_FOR_IMAGE_MAPPING_NAMES",
        headless=True,
    ),
}


@dataclass(frozen=True)
class Pretrained:
    """A model that a measure needs; those that are equal are loaded once.

    Attributes:
        kind: of `KINDS`.
        model: hub id or folder.
        revision: branch, tag or commit on the hub; None is the newest.
        processor: hub id or folder of what prepares its inputs; None is the model's own.
    """

    kind: KindName
    model: str
    revision: str | None = None
    processor: str | None = None

    @property
    def expected(self) -> str:
        """What the model should be."""
        kind = KINDS[self.kind]
        return f"{kind.what}, such as {kind.example}"

    def refusal(self) -> Refusal | None:
        """Return why the model cannot be used, by its configuration; None if nothing speaks against it.

        A repository's configuration is fetched unless it is in the cache.
        """
        for key, model, revision in self._sources():
            try:
                source = find_judge(model, revision)
                if source.kind == "hub":
                    _fetch(source)
            except Exception as error:  # whatever the hub's client raises
                return Refusal(f"{shown(model)}: {_advice(error, self)}", self.expected, key)
        return self._another_kind()

    @cached_property
    def facts(self) -> Facts:
        """What the configuration says, see `vlm_facts`; empty if there is none."""
        return vlm_facts(self.model, self.revision, fetch=False)

    def refuses_label(self, label: str) -> Refusal | None:
        """Return why the model, which tells labels apart, does not know this one."""
        known = [str(value) for key, value in self.facts.items() if key.startswith("id2label.")]
        if not known:
            return Refusal(f"{shown(self.model)} names no labels", self.expected, "model")
        if label in known:
            return None
        near = did_you_mean(label, known)
        problem = f"{shown(self.model)} has no label {shown(label)}{near}"
        return Refusal(problem, f"one of {shortened(', '.join(known))}", "label")

    def _sources(self) -> "Iterator[tuple[str, str, str | None]]":
        yield "model", self.model, self.revision
        if self.processor:
            yield "processor", self.processor, None

    def _another_kind(self) -> Refusal | None:
        from transformers.models.auto import modeling_auto

        kind, name = KINDS[self.kind], self.facts.get("model_type")
        classes = getattr(modeling_auto, kind.mapping)
        if not isinstance(name, str):
            return Refusal(
                f"{shown(self.model)} has no config.json that names a model", self.expected, "model"
            )
        if name not in classes:
            return Refusal(f"{shown(self.model)} is a {shortened(name)} model", self.expected, "model")
        own = self.facts.get("architectures")
        wanted = classes[name] if isinstance(classes[name], tuple) else (classes[name],)
        if kind.headless or not isinstance(own, list) or not own or own[0] in wanted:
            return None
        return Refusal(f"{shown(self.model)} is a {shortened(str(own[0]))}", self.expected, "model")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that judges, frozen and in eval mode, in float32.

    Attributes:
        name: of the model in the spec.
        revision: its commit on the hub; None for a folder.
        licence: as its model card names it; None if it does not.
        model: the model.
        processor: prepares its inputs.
        device: where it runs.
    """

    name: str
    revision: str | None
    licence: str | None
    model: Any
    processor: Any
    device: "torch.device"

    def __call__(self, **inputs: Any) -> Any:
        """Prepare ``inputs``, such as ``images=[...]``, by the processor; return the model's output."""
        import torch

        prepared = self.processor(**inputs, return_tensors="pt").to(self.device)
        with torch.no_grad():
            return self.model(**prepared)


def batches(images: "Tensor") -> "Iterator[list[Image]]":
    """Yield images [N, 3, H, W] in [0, 1] as 8-bit pictures, `BATCH` at a time."""
    from dualproc_cli.pictures import to_pil

    for part in images.split(BATCH):
        yield [to_pil(image) for image in part]


def load_pretrained(needs: Pretrained, device: "torch.device") -> Loaded:
    """Load a model and its processor.

    Raises:
        UserError: it cannot be found or read, or weights are missing.
    """
    import torch
    import transformers

    kind = KINDS[needs.kind]
    try:
        source = find_judge(needs.model, needs.revision)
        prepares = find_judge(needs.processor, None) if needs.processor else source
        processor = _read(getattr(transformers, kind.processor), prepares)
        model, report = _read(
            getattr(transformers, kind.auto),
            source,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(f"{KEY}: {needs.model}: {_advice(error, needs)}") from error
    if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        # transformers would fill them with random numbers and go on.
        raise UserError(
            f"{KEY}: {needs.model}: {len(lacking)} weights are missing or of another shape, the first "
            f"{lacking[0]}; expected {needs.expected}"
        )
    frozen = model.to(device).eval().requires_grad_(False)
    return Loaded(needs.model, source.revision, _licence(source), frozen, processor, device)


def _read(kind: Any, source: ModelSource, **options: Any) -> Any:
    from dualproc_cli.models.quiet import quiet_libraries

    with quiet_libraries():
        return kind.from_pretrained(
            source.location,
            revision=source.wanted,
            local_files_only=source.local_only,
            trust_remote_code=False,
            **options,
        )


def _fetch(source: ModelSource, file: str = "config.json") -> Path:
    """Return a file of a repository, which is downloaded unless it is in the cache."""
    from huggingface_hub import hf_hub_download

    from dualproc_cli.models.quiet import quiet_libraries

    with quiet_libraries():
        return Path(
            hf_hub_download(source.model, file, revision=source.wanted, local_files_only=source.local_only)
        )


def _licence(source: ModelSource) -> str | None:
    """Return the licence that the model card names; None if there is no card or it does not say."""
    from huggingface_hub.repocard import metadata_load

    try:
        card = source.folder / "README.md" if source.folder else _fetch(source, "README.md")
        data = metadata_load(card) or {}
    except Exception:  # a card is a stranger's text, and need not be there
        return None
    name = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return shortened(name) if isinstance(name, str) else None


def _advice(error: Exception, needs: Pretrained) -> str:
    from dualproc_cli.models.load_errors import advice

    if "trust_remote_code" in str(error):
        return "it runs code of its own, which measures never do"
    if isinstance(error, FileNotFoundError) and str(error) == "no such folder":
        return "no such folder"
    return advice(error, KEY, needs.model, needs.revision, needs.expected)
