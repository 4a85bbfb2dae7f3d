"""Models built from their configuration alone, with random weights or with none.

Random weights are as large and as fast as the real ones, but their pictures and answers are meaningless:
``dualproc bench --random-weights`` uses them. Models without weights run their real code and take no memory:
the memory of a run is estimated on them (see `dualproc_cli.models.meta_tensors`).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from dualproc_cli.errors import UserError
from dualproc_cli.known_models.catalog import known_shapes, shape_folder
from dualproc_cli.models.dummy_tokenizer import dummy_tokenizer
from dualproc_cli.models.load_errors import first_line
from dualproc_cli.models.meta_tensors import to_meta
from dualproc_cli.models.quantization import share_of_bytes
from dualproc_cli.models.source import find_model
from dualproc_cli.spec import GeneratorSpec, VlmSpec

Weights = Literal["random", "none"]

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
META = torch.device("meta")
STD = 0.02  # of random weights; most of these models were initialised with it
# These components are never loaded: the safety checker makes the picture an array, which cuts the graph.
LEFT_OUT = ("safety_checker",)


@dataclass(frozen=True)
class ModelShape:
    """The configuration of a model.

    Attributes:
        folder: the folder that holds it, laid out as the model's repository.
        words: texts whose words the dummy tokenizers must know; None if the folder has real tokenizers.
    """

    folder: Path
    words: tuple[str, ...] | None

    def tokenizer(self, name: str = "") -> Any:
        """Make a dummy tokenizer in place of the one in subfolder ``name``."""
        return dummy_tokenizer(self.folder / name, self.words or ())


def shape_of(spec: GeneratorSpec | VlmSpec, texts: Iterable[str]) -> ModelShape:
    """Find the configuration of a spec's model: the packaged one, or the model's own.

    Args:
        spec: names the model.
        texts: the texts that the model will be given.

    Raises:
        UserError: there is no such folder, or the hub cannot be reached.
    """
    part = "generator" if isinstance(spec, GeneratorSpec) else "vlm"
    try:
        source = find_model(spec)
        if source.kind == "hub" and spec.model in known_shapes():
            return known_shape(spec.model, texts)
        return ModelShape(source.configuration(), None)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises many types of errors
        raise UserError(
            f"{part}.model: {spec.model}: its configuration cannot be read ({first_line(error)}); "
            "connect to the hub, or name a folder"
        ) from error


def known_shape(repo: str, texts: Iterable[str]) -> ModelShape:
    """Return the shape of a model whose configuration comes with the package.

    Raises:
        UserError: the package has no configuration of this model.
    """
    return ModelShape(shape_folder(repo), tuple(texts))


def build_pipeline(
    shape: ModelShape, weights: Weights, device: torch.device, dtype: torch.dtype, quantization: str = "none"
) -> DiffusionPipeline:
    """Build a pipeline.

    Args:
        shape: the shape of a diffusers pipeline.
        weights: ``random`` or ``none``, for all its models.
        device: the device of random weights.
        dtype: the weights' precision.
        quantization: for models without weights: as which their bytes are counted, except the VAE's.
    """
    index = _read(shape.folder / "model_index.json")
    components: dict[str, Any] = {name: None for name in LEFT_OUT if name in index}
    for name, entry in index.items():
        if name in components or not isinstance(entry, list) or entry[0] not in LIBRARIES:
            continue
        kind = getattr(LIBRARIES[entry[0]], entry[1])
        if shape.words is not None and name.startswith("tokenizer"):
            components[name] = shape.tokenizer(name)
        elif isinstance(kind, type) and issubclass(kind, nn.Module):
            how = "none" if name == "vae" else quantization
            components[name] = build_module(kind, shape.folder / name, weights, device, dtype, how)
    if shape.words is None:
        return DiffusionPipeline.from_pretrained(shape.folder, **components)
    scheduler = getattr(diffusers, index["scheduler"][1])
    components["scheduler"] = scheduler.from_config(
        _read(shape.folder / "scheduler" / "scheduler_config.json")
    )
    others = {name: entry for name, entry in index.items() if name[0] != "_" and not isinstance(entry, list)}
    return getattr(diffusers, index["_class_name"])(**components, **others)


def build_vlm_model(
    shape: ModelShape, weights: Weights, device: torch.device, dtype: torch.dtype, quantization: str = "none"
) -> PreTrainedModel:
    """Build a VLM without its processor; arguments as in `build_pipeline`."""
    config = AutoConfig.from_pretrained(shape.folder)
    kind = AutoModelForImageTextToText._model_mapping[type(config)]
    return build_module(kind, shape.folder, weights, device, dtype, quantization)


def dummy_processor(shape: ModelShape) -> ProcessorMixin:
    """Make the processor of a VLM's known shape: the real image processor with a dummy tokenizer."""
    folder = shape.folder
    template = (folder / "chat_template.jinja").read_text("utf-8").rstrip("\n")
    options = _read(folder / "processor_config.json") if (folder / "processor_config.json").exists() else {}
    kind = getattr(transformers, _read(folder / "preprocessor_config.json")["processor_class"])
    return kind(
        image_processor=AutoImageProcessor.from_pretrained(folder),
        tokenizer=ModelShape(folder, (*(shape.words or ()), template)).tokenizer(),
        video_processor=AutoVideoProcessor.from_pretrained(folder),
        chat_template=template,
        **{name: value for name, value in options.items() if name != "processor_class"},
    )


def count_parameters(repo: str) -> dict[str, int]:
    """Count the parameters of each component of a known shape; a VLM has one, ``model``."""
    shape = known_shape(repo, ())
    if not (shape.folder / "model_index.json").exists():
        return {"model": _size(build_vlm_model(shape, "none", META, torch.bfloat16))}
    components = build_pipeline(shape, "none", META, torch.bfloat16).components
    return {name: _size(part) for name, part in components.items() if isinstance(part, nn.Module)}


def build_module(
    kind: Any,
    folder: Path,
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str = "none",
) -> Any:
    """Build a diffusers or transformers model of class ``kind`` as the config.json in ``folder`` says.

    Its buffers are computed and real in any case. The other arguments are those of `build_pipeline`.
    """
    with init_empty_weights(include_buffers=False):
        if issubclass(kind, PreTrainedModel):
            model = kind._from_config(kind.config_class.from_pretrained(folder), dtype=dtype)
        else:
            model = kind.from_config(_read(folder / "config.json"))
    if isinstance(model, PreTrainedModel):
        model.tie_weights()  # the meta device has untied them
    if weights == "none":
        return to_meta(model, dtype, share_of_bytes(quantization, dtype))
    _fill(model, device, dtype)
    return model


def _fill(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Make every parameter on ``device``: matrices are normal, biases zero, other vectors (norms) one."""
    random = torch.Generator(device).manual_seed(0)
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in made:
                tensor = torch.empty(parameter.shape, device=device, dtype=dtype)
                if parameter.ndim > 1:
                    tensor.normal_(std=STD, generator=random)
                else:
                    tensor.fill_(0.0 if name.endswith("bias") else 1.0)
                made[parameter] = nn.Parameter(tensor, requires_grad=False)
            setattr(module, name, made[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))
