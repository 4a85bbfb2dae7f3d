"""Models of known shapes with random weights: as large and as fast as the real ones, and as empty.

They are what ``dualproc bench --random-weights`` measures, and draw and answer nothing that means anything.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from transformers import AutoImageProcessor, AutoVideoProcessor, PreTrainedModel, ProcessorMixin

from dualproc_cli.known_models.catalog import shape_folder
from dualproc_cli.models.dummy_tokenizer import dummy_tokenizer

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
STD = 0.02  # of the weights: what most of these models were initialised with


def build_pipeline(
    repo: str, device: torch.device, dtype: torch.dtype, texts: Iterable[str]
) -> DiffusionPipeline:
    """A pipeline of the shape of ``repo``, on ``device``, with random weights.

    Args:
        repo: a known shape.
        device: where the weights are made, ``meta`` included.
        dtype: of the weights.
        texts: what will be prompted; the stand-in tokenizers know its words.

    Raises:
        UserError: the shape is unknown.
    """
    folder = shape_folder(repo)
    index = _read(folder / "model_index.json")
    parts = {name: entry for name, entry in index.items() if isinstance(entry, list)}
    others = {name: entry for name, entry in index.items() if name not in parts and name[0] != "_"}
    components: dict[str, Any] = {}
    for name, (library, kind) in parts.items():
        if name.startswith("tokenizer"):
            components[name] = dummy_tokenizer(folder / name, texts)
        elif name == "scheduler":
            components[name] = getattr(diffusers, kind).from_config(
                _read(folder / name / "scheduler_config.json")
            )
        else:
            components[name] = build_module(getattr(LIBRARIES[library], kind), folder / name, device, dtype)
    return getattr(diffusers, index["_class_name"])(**components, **others)


def build_vlm(
    repo: str, device: torch.device, dtype: torch.dtype, texts: Iterable[str]
) -> tuple[ProcessorMixin, PreTrainedModel]:
    """A processor and a VLM of the shape of ``repo``, with random weights; arguments as `build_pipeline`."""
    folder = shape_folder(repo)
    kind = getattr(transformers, _read(folder / "config.json")["architectures"][0])
    return build_processor(repo, texts), build_module(kind, folder, device, dtype)


def build_processor(repo: str, texts: Iterable[str]) -> ProcessorMixin:
    """The real image processor of a VLM's shape, and a stand-in tokenizer that knows ``texts``."""
    folder = shape_folder(repo)
    template = (folder / "chat_template.jinja").read_text("utf-8").rstrip("\n")
    options = _read(folder / "processor_config.json") if (folder / "processor_config.json").exists() else {}
    kind = getattr(transformers, _read(folder / "preprocessor_config.json")["processor_class"])
    return kind(
        image_processor=AutoImageProcessor.from_pretrained(folder),
        tokenizer=dummy_tokenizer(folder, [*texts, template]),
        video_processor=AutoVideoProcessor.from_pretrained(folder),
        chat_template=template,
        **{name: value for name, value in options.items() if name != "processor_class"},
    )


def count_parameters(repo: str) -> dict[str, int]:
    """Parameters of each component, counted on the meta device; a VLM has one, ``model``."""
    meta = torch.device("meta"), torch.bfloat16
    folder = shape_folder(repo)
    if not (folder / "model_index.json").exists():
        return {"model": _size(build_vlm(repo, *meta, ())[1])}
    components = build_pipeline(repo, *meta, ()).components
    return {name: _size(part) for name, part in components.items() if isinstance(part, nn.Module)}


def build_module(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A diffusers or transformers model of the class ``kind``, as the config.json in ``folder`` says.

    Its weights are random, or none on the meta device; its buffers, which are computed, are real.
    """
    # Parameters are laid out on the meta device and made where they belong.
    with init_empty_weights(include_buffers=False):
        if issubclass(kind, PreTrainedModel):
            model = kind._from_config(kind.config_class.from_pretrained(folder), dtype=dtype)
        else:
            model = kind.from_config(_read(folder / "config.json"))
    if isinstance(model, PreTrainedModel):
        model.tie_weights()  # what it tied itself was parted on the way to the meta device
    if device.type != "meta":
        _fill(model, device, dtype)
    return model


def _fill(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Make every parameter on ``device``: norms scale by one, biases are zero, the rest is normal."""
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
