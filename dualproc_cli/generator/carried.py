"""The adapters that a spec's generator already carries, checked before any of its weights are loaded."""

import json
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from torch import nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator.adapter import misfit
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.adapter_reading import read_adapter
from dualproc_cli.models.build import shape_of
from dualproc_cli.spec import GeneratorSpec

DENOISERS = ("transformer", "unet")


def read_adapters(spec: GeneratorSpec) -> list[tuple[AdapterFile, float]]:
    """Read the adapters that ``spec`` names, by the paths where their files lie, with their scales.

    Raises:
        UserError: one cannot be read, or was made for another generator.
    """
    if not spec.adapters:
        return []
    pipeline, component, denoiser = empty_denoiser(spec)
    found = []
    for one in spec.adapters:
        file = read_adapter(Path(one.path), pipeline, component, denoiser.config)
        if why := misfit(component, denoiser, file):
            raise UserError(
                f"generator.adapters: {one.path}: made for another generator than {spec.model}: {why}; "
                "leave it out, or name its generator"
            )
        found.append((file, one.scale))
    return found


def empty_denoiser(spec: GeneratorSpec) -> tuple[type, str, Any]:
    """Return the class of a spec's pipeline, and the name of its denoiser with the denoiser without weights.

    Raises:
        UserError: its configuration cannot be read, or its classes are not those of diffusers.
    """
    folder = shape_of(spec, ()).folder
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        component = next(name for name in DENOISERS if name in index)
        pipeline, kind = (getattr(diffusers, name) for name in (index["_class_name"], index[component][1]))
        with init_empty_weights():
            denoiser: nn.Module = kind.from_config(kind.load_config(folder, subfolder=component))
    except (OSError, ValueError, KeyError, StopIteration, AttributeError) as error:
        raise UserError(
            f"generator.model: {spec.model}: its configuration is not that of a pipeline of diffusers "
            f"({error}); adapters need one"
        ) from error
    return pipeline, component, denoiser
