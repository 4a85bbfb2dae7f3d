"""Generators and VLMs built from their configurations alone, without weights: see `hollow`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from dualproc_cli import miniature
from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator, prepare_generator
from dualproc_cli.generator.self_test import Conventions, count_idle_timesteps
from dualproc_cli.generator.workarounds import LEFT_OUT
from dualproc_cli.known_models.catalog import known_shapes
from dualproc_cli.memory.meta_tensors import to_meta
from dualproc_cli.models.build import LIBRARIES, build_module, build_pipeline, build_vlm
from dualproc_cli.models.quantization import BYTES
from dualproc_cli.spec import GeneratorSpec, VlmSpec
from dualproc_cli.vlm import Vlm, load_processor, prepare_vlm

CPU, META = torch.device("cpu"), torch.device("meta")
# Everything in a repository but its weights.
SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "**/*.json", "**/*.txt", "**/*.model"]


def meta_generator(spec: GeneratorSpec, dtype: torch.dtype, prompts: Sequence[str]) -> Generator:
    """The generator of a spec without weights, its prompts' words known to its tokenizers.

    Raises:
        UserError: its configuration cannot be found or read.
    """
    folder = _configuration(spec)
    if folder is None:
        pipeline = build_pipeline(spec.model, META, dtype, prompts)
    else:
        pipeline = _pipeline(folder, dtype)
    share = _share(spec.quantization, dtype)
    for name, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            to_meta(module, dtype, 1.0 if name == "vae" else share)
    size, spec = Conventions(width=spec.width, height=spec.height), spec.model_copy(update={"compile": False})
    generator = prepare_generator(pipeline, spec, CPU, conventions=size)
    generator.conventions = replace(size, idle_timesteps=count_idle_timesteps(generator))
    return generator


def meta_vlm(spec: VlmSpec, dtype: torch.dtype, texts: Sequence[str]) -> Vlm:
    """The VLM of a spec without weights, the words of ``texts`` known to its tokenizer.

    Raises:
        UserError: its configuration cannot be found or read.
    """
    folder = _configuration(spec)
    model: Any
    if folder is None:
        processor, model = build_vlm(spec.model, META, dtype, texts)
    else:
        processor = load_processor(spec.model_copy(update={"model": str(folder), "revision": None})).processor
        config = AutoConfig.from_pretrained(folder)
        model = build_module(AutoModelForImageTextToText._model_mapping[type(config)], folder, META, dtype)
    to_meta(model, dtype, _share(spec.quantization, dtype))
    return prepare_vlm(processor, model, CPU, spec.image_scale)


def local_folder(spec: GeneratorSpec | VlmSpec) -> Path | None:
    """The folder of a model that needs no hub: the miniature's, or the one that is named."""
    if spec.model == "miniature":
        is_generator = isinstance(spec, GeneratorSpec)
        return miniature.generator_folder(None) if is_generator else miniature.vlm_folder(None)
    folder = Path(spec.model).expanduser()
    return folder if folder.is_dir() else None


def _share(quantization: str, dtype: torch.dtype) -> float:
    """Bytes of a quantised weight over those of one in ``dtype``."""
    return BYTES.get(quantization, dtype.itemsize) / dtype.itemsize


def _configuration(spec: GeneratorSpec | VlmSpec) -> Path | None:
    """The folder with a model's configuration; None where only its shape is known."""
    if (local := local_folder(spec)) is not None:
        return local
    if spec.model in known_shapes():
        return None
    try:
        return Path(snapshot_download(spec.model, revision=spec.revision, allow_patterns=SMALL_FILES))
    except Exception as error:  # whatever the hub client raises, there is no configuration to read
        kind = "generator" if isinstance(spec, GeneratorSpec) else "vlm"
        raise UserError(
            f"{kind}.model: {spec.model}: its configuration cannot be read ({str(error).splitlines()[0]}); "
            "connect to the hub, or name a folder"
        ) from error


def _pipeline(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    index: Any = DiffusionPipeline.load_config(folder)
    parts: dict[str, Any] = {name: None for name in LEFT_OUT if name in index}
    for name, entry in index.items():
        if name in parts or not isinstance(entry, list | tuple) or entry[0] not in LIBRARIES:
            continue
        kind = getattr(LIBRARIES[entry[0]], entry[1])
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            parts[name] = build_module(kind, folder / name, META, dtype)
    return DiffusionPipeline.from_pretrained(folder, **parts)
