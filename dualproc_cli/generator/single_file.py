"""Single-file checkpoints: a whole pipeline, or its denoiser alone, in one safetensors file."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import safe_open

from dualproc_cli.errors import UserError
from dualproc_cli.generator.carried import DENOISERS
from dualproc_cli.models.build import LEFT_OUT
from dualproc_cli.models.source import ModelSource
from dualproc_cli.spec import GeneratorSpec

# How the names of a decoder or a text encoder start: without any, the file holds a denoiser alone.
OTHER_PARTS = ("first_stage_model.", "cond_stage_model.", "conditioner.", "vae.", "text_encoders.")


def from_single_file(
    source: ModelSource, file: Path, spec: GeneratorSpec, dtype: torch.dtype
) -> DiffusionPipeline:
    """Load a pipeline whose weights are in ``file``; what it lacks comes from the generator's base.

    Args:
        source: the base.
        file: a file of safetensors, as `dualproc_cli.models.source.find_model` has checked.
        spec: of the generator.
        dtype: the weights' precision.

    Raises:
        UserError: the file lacks a part that the base has.
        Exception: any error of the libraries that read it.
    """
    folder = source.configuration()
    index: Any = DiffusionPipeline.load_config(folder)
    left_out = {name: None for name in LEFT_OUT if name in index}
    with safe_open(file, framework="pt") as weights:
        whole = any(name.startswith(OTHER_PARTS) for name in weights.keys())  # noqa: SIM118  # no mapping
    if whole:
        kind = getattr(diffusers, index["_class_name"])
        try:
            return kind.from_single_file(str(file), config=str(folder), dtype=dtype, **left_out)
        except SingleFileComponentError as error:
            raise UserError(
                f"generator.model: {file}: lacks a part of a {kind.__name__} ({error}); use a complete file, "
                "or a folder"
            ) from error
    component = next(name for name in DENOISERS if name in index)
    denoiser = getattr(diffusers, index[component][1]).from_single_file(
        str(file), config=str(folder), subfolder=component, dtype=dtype
    )
    return DiffusionPipeline.from_pretrained(
        source.location,
        revision=source.wanted,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=spec.trust_remote_code,
        **{component: denoiser},
        **left_out,
    )
