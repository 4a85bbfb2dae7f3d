"""A frozen vision-language model and its processor, from the hub, a folder or the embedded miniature."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from dualproc_cli import miniature
from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.spec import VlmSpec

logger = logging.getLogger(__name__)

# For a processor without a chat template: the picture, the question, then the answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True)
class Vlm:
    """A vision-language model, frozen and in eval mode, with the processor that prepares its inputs."""

    processor: ProcessorMixin
    model: PreTrainedModel | None  # None: the processor alone, enough to plan what will be asked
    device: torch.device
    revision: str | None  # commit on the hub, or the miniature's weights; None for a local folder

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype if self.model is not None else torch.float32


def load_vlm(spec: VlmSpec, device: torch.device) -> Vlm:
    """Load the VLM that ``spec`` names, frozen and in eval mode, on ``device``.

    Raises:
        UserError: the model cannot be found or read, is no image-text-to-text model, lacks weights, or its
            quantization is not available here.
    """
    processor = _load_processor(spec)
    dtype = pick_dtype(spec.dtype, device)
    options: dict[str, Any] = {"dtype": dtype}
    if spec.quantization != "none":
        options |= {"quantization_config": _quantization(spec, dtype, device), "device_map": {"": device}}
    model, report = _read(
        spec, AutoModelForImageTextToText.from_pretrained, output_loading_info=True, **options
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill them with random numbers and go on.
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise UserError(
            f"vlm.model: {spec.model} is incomplete: {len(lacking)} weights missing or of another shape, "
            f"the first {lacking[0]}; download or save it again"
        )
    if spec.quantization == "none":
        model = model.to(device)
    return Vlm(processor, model.eval().requires_grad_(False), device, _commit(spec))


def prepare_vlm(processor: ProcessorMixin, model: PreTrainedModel, device: torch.device) -> Vlm:
    """Freeze a VLM that is in memory, on ``device`` already, and its processor likewise."""
    _clamp_resizes(processor.image_processor)
    return Vlm(processor, model.eval().requires_grad_(False), device, None)


def load_processor(spec: VlmSpec) -> Vlm:
    """The processor alone (``model`` is None): seconds instead of minutes, enough for `Inquiry.describe`.

    Raises:
        UserError: the processor cannot be found or read.
    """
    return Vlm(_load_processor(spec), None, torch.device("cpu"), _commit(spec))


def _load_processor(spec: VlmSpec) -> ProcessorMixin:
    processor = _read(spec, AutoProcessor.from_pretrained)
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"vlm.model: {spec.model} has no processor for pictures and text; expected a model with both"
        )
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        logger.warning("%s has no chat template: questions are put right after the picture", spec.model)
        picture = getattr(processor, "image_token", "<image>")
        processor.chat_template = PLAIN_TEMPLATE.replace("IMAGE", picture)
    _clamp_resizes(processor.image_processor)
    return processor


class _Clamped:
    """An image processor whose resized float pictures stay in [0, 1].

    Bicubic and Lanczos filters overshoot. In use the VLM sees 8-bit pictures, which cannot, so while
    learning it must not see values beyond black and white either.
    """

    def resize(self, *args: Any, **options: Any) -> Any:
        resized = super().resize(*args, **options)  # type: ignore[misc]
        return resized.clamp(0, 1) if torch.is_tensor(resized) and resized.is_floating_point() else resized


def _clamp_resizes(image_processor: Any) -> None:
    kind = type(image_processor)
    if hasattr(kind, "resize") and not issubclass(kind, _Clamped):
        image_processor.__class__ = type(kind.__name__, (_Clamped, kind), {})


def _read(spec: VlmSpec, from_pretrained: Any, **options: Any) -> Any:
    """Call a ``from_pretrained``, turning whatever goes wrong with the files into one line."""
    source = _source(spec)
    try:
        return from_pretrained(
            source, revision=spec.revision, trust_remote_code=spec.trust_remote_code, **options
        )
    except ImportError as error:
        raise UserError(
            f"vlm.model: {spec.model} needs a package that is not installed: {_line(error)}"
        ) from error
    except Exception as error:  # hub, JSON, safetensors and pickle errors have no common class
        raise UserError(
            f"vlm.model: cannot load {spec.model} as an image-text-to-text model ({_line(error)}); expected "
            "a hub id that you have access to, a folder with config, weights and processor, or `miniature`"
        ) from error


def _source(spec: VlmSpec) -> str:
    if spec.model != "miniature":
        return spec.model
    return str(miniature.vlm_folder(spec.revision))


def _commit(spec: VlmSpec) -> str | None:
    """The commit that was read: hub files lie in the cache under ``snapshots/<commit>/``."""
    if spec.model == "miniature":
        return miniature.revision("vlm")
    if Path(spec.model).exists():
        return None
    config = try_to_load_from_cache(spec.model, "config.json", revision=spec.revision)
    return Path(config).parent.name if isinstance(config, str) else None


def _quantization(spec: VlmSpec, dtype: torch.dtype, device: torch.device) -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"vlm.quantization: {spec.quantization} needs the package bitsandbytes: pip install bitsandbytes"
        )
    if device.type != "cuda":
        raise UserError(f"vlm.quantization: {spec.quantization} needs a CUDA device; on {device} use none")
    if spec.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _line(error: Exception) -> str:
    """The first line of an error's message, or its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__
