"""Reading anybody's LoRA: named by diffusers, kohya or others, its alphas in tensors or in metadata.

diffusers' own converters change the names. The alphas are baked into the weights first, so that nothing
depends on where a tool has put them.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.generator.adapter_file import METADATA_KEY, AdapterFile
from dualproc_cli.generator.tensor_file import read_tensor_file
from dualproc_cli.models.load_errors import first_line

# Endings of the two matrices of a layer, the first one [rank, in].
PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)


def read_adapter(path: Path, pipeline: type, component: str, config: Any) -> AdapterFile:
    """Read a LoRA of the pipeline's denoiser.

    Args:
        path: a safetensors file.
        pipeline: the class of the pipeline, whose converter of names is used.
        component: the name of its denoiser.
        config: the denoiser's configuration.

    Raises:
        UserError: the file cannot be read, or is no LoRA of the denoiser alone.
    """
    try:
        tensors, metadata = read_tensor_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    try:
        named = _renamed(_without_alphas(tensors, metadata), pipeline, config)
    except Exception as error:  # the converters raise many types of errors
        raise UserError(
            f"{path}: a {pipeline.__name__} cannot read it ({first_line(error)}); expected a LoRA made for it"
        ) from error
    foreign = [key for key in named if not key.startswith(f"{component}.")]
    if foreign or not named:
        what = f"also adapts {foreign[0].partition('.')[0]}" if foreign else "is empty"
        raise UserError(f"{path}: it {what}; expected a LoRA of the {component} alone")
    return _adapter(path, component, {key.partition(".")[2]: value for key, value in named.items()})


def _without_alphas(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors with the factor alpha / rank of each layer baked into the second matrix."""
    config = json.loads(metadata.get(METADATA_KEY, "{}"))
    found = {}
    for key, tensor in tensors.items():
        if key.endswith(".alpha"):
            continue
        found[key] = tensor.float()
        for down, up in PAIRS:
            layer = key.removesuffix(up)
            if key.endswith(up) and layer + down in tensors:
                rank = len(tensors[layer + down])
                alpha = tensors.get(f"{layer}.alpha")
                factor = _factor(config, layer, rank) if alpha is None else alpha.item() / rank
                found[key] = factor * tensor.float()
    return found


def _factor(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Return alpha / rank of ``layer`` by peft's configuration, whose keys start with the component."""
    component, _, module = layer.partition(".")
    own = {key.removeprefix(f"{component}."): value for key, value in config.items()}
    if own.get("use_dora"):
        raise ValueError("it is a DoRA")
    alpha = own.get("lora_alpha", rank)
    for pattern, value in (own.get("alpha_pattern") or {}).items():
        if re.search(rf"(^|\.){pattern.removeprefix('^')}$", module):
            alpha = value
    return alpha / (rank**0.5 if own.get("use_rslora") else rank)


def _renamed(tensors: dict[str, Tensor], pipeline: Any, config: Any) -> dict[str, Tensor]:
    """Return the tensors under diffusers' names, ``COMPONENT.MODULE.lora_A.weight``."""
    if hasattr(pipeline, "lora_state_dict"):
        # Those that know an option take it, the others ignore it; some return more than the tensors.
        found = pipeline.lora_state_dict(tensors, unet_config=config)
        tensors = found[0] if isinstance(found, tuple) else found
    if not all(".lora_A." in key or ".lora_B." in key for key in tensors):
        tensors = convert_unet_state_dict_to_peft(tensors)
    return tensors


def _adapter(path: Path, component: str, tensors: dict[str, Tensor]) -> AdapterFile:
    """Return the adapter, layers of a lower rank than others filled up with zeros, which change nothing."""
    down, _ = PAIRS[0]
    rank = max((len(tensor) for key, tensor in tensors.items() if key.endswith(down)), default=0)
    filled = {}
    for key, tensor in tensors.items():
        dimension = 0 if key.endswith(down) else 1
        shape = list(tensor.shape)
        with contextlib.suppress(IndexError):  # of a wrong shape: reported below
            shape[dimension] = rank - shape[dimension]
            tensor = torch.cat([tensor, tensor.new_zeros(shape)], dimension)
        filled[key] = tensor.contiguous()
    file = AdapterFile(component, "lora", rank, filled)
    try:
        _ = file.layers
    except ValueError as error:
        raise UserError(f"{path}: its tensors are not those of a LoRA ({error}); expected one") from error
    return file
