"""A frozen vision-language model and its processor, from the hub, a folder or the embedded miniature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.models.load_errors import advice
from dualproc_cli.models.quantization import for_model, quantization, quantize
from dualproc_cli.models.quiet import quiet_libraries
from dualproc_cli.models.source import ModelSource, find_model
from dualproc_cli.spec import VlmSpec
from dualproc_cli.stages import stage
from dualproc_cli.vlm.image_processor import change_image_processor
from dualproc_cli.vlm.template import set_template

if TYPE_CHECKING:
    from dualproc_cli.models.build import Weights

EXPECTED = "an image-text-to-text model with its processor: a hub id, a folder or miniature"


@dataclass(frozen=True)
class Vlm:
    """A vision-language model, frozen and in eval mode, with the processor that prepares its inputs.

    Attributes:
        processor: the model's own.
        model: None where only the processor was loaded, which is enough to plan the questions.
        device: where the model runs.
        revision: commit on the hub, or of the miniature's weights; None for a local folder.
        workarounds: the changes that were needed to ask it questions, each with its reason.
        image_scale: how large pictures are shown to it, as a fraction of their width and height, in (0, 1].
    """

    processor: ProcessorMixin
    model: PreTrainedModel | None
    device: torch.device
    revision: str | None
    workarounds: tuple[str, ...] = ()
    image_scale: float = 1.0

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype; float32 without a model."""
        return self.model.dtype if self.model is not None else torch.float32


def load_vlm(spec: VlmSpec, device: torch.device) -> Vlm:
    """Load the VLM that ``spec`` names, frozen and in eval mode, on ``device``.

    Raises:
        UserError: the model cannot be found or read, is not an image-text-to-text model, lacks weights, or
            its quantization is not available here.
    """
    source = _find(spec)
    processor, workarounds = _load_processor(spec, source)
    dtype = pick_dtype(spec.dtype, device)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if found := quantization(spec.quantization, device, "vlm"):
        options |= {"quantization_config": for_model(found, dtype), "device_map": {"": device}}
    model, report = _read(
        spec, source, AutoModelForImageTextToText.from_pretrained, output_loading_info=True, **options
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill them with random numbers and go on.
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise UserError(
            f"vlm.model: {spec.model} is incomplete: {len(lacking)} weights missing or of another shape, "
            f"the first {lacking[0]}; download or save it again"
        )
    if found is None:
        model = model.to(device)
    frozen = model.eval().requires_grad_(False)
    return Vlm(processor, frozen, device, source.revision, workarounds, spec.image_scale)


def build_vlm(spec: VlmSpec, device: torch.device, weights: "Weights", texts: Sequence[str]) -> Vlm:
    """Build the VLM that ``spec`` names from its configuration alone.

    Args:
        spec: names a model whose shape is known or whose configuration can be read locally.
        device: where random weights are placed. A VLM without weights reports the CPU.
        weights: see `dualproc_cli.models.build`.
        texts: the questions and answers that it will be given.

    Raises:
        UserError: the configuration cannot be found or read, or its quantization is not available here.
    """
    from dualproc_cli.models.build import build_vlm_model, dummy_processor, shape_of  # loads diffusers

    dtype, shape = pick_dtype(spec.dtype, device), shape_of(spec, texts)
    if shape.words is None:
        local = spec.model_copy(update={"model": str(shape.folder), "revision": None})
        processor = load_processor(local).processor
    else:
        processor = dummy_processor(shape)
        change_image_processor(processor, spec.processor)
    model = build_vlm_model(shape, weights, device, dtype, spec.quantization)
    if weights == "none":
        return prepare_vlm(processor, model, torch.device("cpu"), spec.image_scale)
    if found := quantization(spec.quantization, device, "vlm"):
        quantize(model, found)
    return prepare_vlm(processor, model, device, spec.image_scale)


def prepare_vlm(
    processor: ProcessorMixin, model: PreTrainedModel, device: torch.device, image_scale: float = 1.0
) -> Vlm:
    """Freeze a model that is already on ``device`` and set eval mode, as `load_vlm` does."""
    _clamp_resizes(processor.image_processor)
    return Vlm(processor, model.eval().requires_grad_(False), device, None, image_scale=image_scale)


def load_processor(spec: VlmSpec) -> Vlm:
    """Load the processor without the model (``model`` is None), which is enough for `AnswerScorer.plan`.

    Raises:
        UserError: the processor cannot be found or read, it has no such options as the spec gives it, or the
            model is not an image-text-to-text model.
    """
    source = _find(spec)
    processor, workarounds = _load_processor(spec, source)
    return Vlm(processor, None, torch.device("cpu"), source.revision, workarounds, spec.image_scale)


def _load_processor(spec: VlmSpec, source: ModelSource) -> tuple[ProcessorMixin, tuple[str, ...]]:
    stage(f"loading {spec.model}")
    config = _read(spec, source, AutoConfig.from_pretrained)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not getattr(config, "auto_map", None):
        raise UserError(
            f"vlm.model: {spec.model} is a {config.model_type} model, which answers no questions about "
            f"pictures; expected {EXPECTED}"
        )
    if any(getattr(part, "is_encoder_decoder", False) for part in (config, config.get_text_config())):
        raise UserError(
            f"vlm.model: {spec.model} is an encoder-decoder ({config.model_type}), whose answers are not the "
            "next text of a dialogue; choose a decoder, such as Qwen3-VL or SmolVLM"
        )
    processor = _read(spec, source, AutoProcessor.from_pretrained)
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"vlm.model: {spec.model} has no processor for pictures and text; expected a model with both"
        )
    change_image_processor(processor, spec.processor)
    _clamp_resizes(processor.image_processor)
    return processor, set_template(processor, spec.model)


class _Clamped:
    """An image processor whose resized float pictures stay in [0, 255].

    Bicubic and Lanczos filters overshoot. The 8-bit pictures that VLMs normally get are clipped to this
    range, so the pictures that a control is learned from must be too.
    """

    def resize(self, *args: Any, **options: Any) -> Any:
        resized = super().resize(*args, **options)  # type: ignore[misc]
        return resized.clamp(0, 255) if torch.is_tensor(resized) and resized.is_floating_point() else resized


def _clamp_resizes(image_processor: Any) -> None:
    kind = type(image_processor)
    if hasattr(kind, "resize") and not issubclass(kind, _Clamped):
        image_processor.__class__ = type(kind.__name__, (_Clamped, kind), {})


def _find(spec: VlmSpec) -> ModelSource:
    try:
        return find_model(spec)
    except FileNotFoundError as error:
        found = advice(error, "vlm", spec.model, spec.revision, EXPECTED)
        raise UserError(f"vlm.model: {spec.model}: {found}") from error


def _read(spec: VlmSpec, source: ModelSource, from_pretrained: Any, **options: Any) -> Any:
    """Call a ``from_pretrained``, turning whatever goes wrong with the files into one line."""
    try:
        with quiet_libraries():
            return from_pretrained(
                source.location,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                local_files_only=source.local_only,
                **options,
            )
    except Exception as error:
        found = advice(error, "vlm", spec.model, spec.revision, EXPECTED)
        raise UserError(f"vlm.model: {spec.model}: {found}") from error
