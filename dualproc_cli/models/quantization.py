"""Frozen weights of 8 or 4 bits: the size and error of each kind, and the package for each device."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from dualproc_cli.errors import UserError

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig


@dataclass(frozen=True)
class Quantization:
    """How one package quantises the linear layers of a frozen model.

    Attributes:
        package: the package, as pip and import call it.
        config: name of the configuration class, in both diffusers and transformers.
        options: makes the arguments of the configuration class, for a precision of computation.
        layer: turns a linear layer that is in memory into a quantised one.
    """

    package: str
    config: str
    options: Callable[[torch.dtype], dict[str, Any]]
    layer: Callable[[nn.Linear], nn.Module]


@dataclass(frozen=True)
class Bits:
    """A kind of quantised weights.

    Attributes:
        name: its name in the spec.
        count: bits per weight.
        bytes: bytes per weight, scales included.
        error: how much it changes pictures, answers and gradients, as measured.
        on: how it is done on each type of device; the key ``None`` stands for all others.
    """

    name: str
    count: int
    bytes: float
    error: str
    on: dict[str | None, Quantization]

    def available(self, device: torch.device) -> Quantization | None:
        """Return how it is done on ``device``; None if no package supports it."""
        return self.on.get(device.type, self.on.get(None))


def _torchao_layer(layer: nn.Linear) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(layer, Int8WeightOnlyConfig())
    return layer


def _torchao_options(dtype: torch.dtype) -> dict[str, Any]:
    from torchao.quantization import Int8WeightOnlyConfig

    return {"quant_type": Int8WeightOnlyConfig()}


def _bitsandbytes_layer(layer: nn.Linear, four_bits: bool) -> nn.Module:
    import bitsandbytes as bnb

    made: Any
    size, bias = (layer.in_features, layer.out_features), layer.bias is not None
    if four_bits:
        made = bnb.nn.Linear4bit(*size, bias=bias, compute_dtype=layer.weight.dtype, quant_type="nf4")
        made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    else:
        made = bnb.nn.Linear8bitLt(*size, bias=bias, has_fp16_weights=False)
        made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made.to(layer.weight.device)  # moving it to its device quantises it


TORCHAO_INT8 = Quantization("torchao", "TorchAoConfig", _torchao_options, _torchao_layer)
BITSANDBYTES_INT8 = Quantization(
    "bitsandbytes",
    "BitsAndBytesConfig",
    lambda dtype: {"load_in_8bit": True},
    lambda layer: _bitsandbytes_layer(layer, four_bits=False),
)
BITSANDBYTES_NF4 = Quantization(
    "bitsandbytes",
    "BitsAndBytesConfig",
    lambda dtype: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
    lambda layer: _bitsandbytes_layer(layer, four_bits=True),
)

# Measured on the miniature, whose layers are 160 wide, on 48 pictures: their pixels, P(answer) of a question
# about the horizon, and its gradient with respect to the pixels.
INT8_ERROR = (
    "pictures differ by 0.7 of 255 levels, P(answer) by less than .001; gradients have a cosine above .999"
)
NF4_ERROR = "pictures differ by 53 of 255 levels, P(answer) by .04; gradients have a cosine of .34"

# Ordered from most to fewest bits. nf4 keeps a 32-bit scale for every 64 weights.
BITS = {
    bits.name: bits
    for bits in (
        Bits("int8", 8, 1.0, INT8_ERROR, {"cuda": BITSANDBYTES_INT8, None: TORCHAO_INT8}),
        Bits("nf4", 4, 0.56, NF4_ERROR, {"cuda": BITSANDBYTES_NF4}),
    )
}


def share_of_bytes(name: str, dtype: torch.dtype) -> float:
    """Return the size of a quantised weight relative to one in ``dtype``; 1 for ``none``."""
    return BITS[name].bytes / dtype.itemsize if name in BITS else 1.0


def quantization(name: str, device: torch.device, where: str) -> Quantization | None:
    """Find how a spec's ``quantization`` is done: bitsandbytes on CUDA, torchao elsewhere; None for ``none``.

    Args:
        name: ``none`` or one of `BITS`.
        device: the device on which the model will be.
        where: the part of the spec, for messages: ``generator`` or ``vlm``.

    Raises:
        UserError: the device does not support it, or the package is not installed.
    """
    if name == "none":
        return None
    where, found = f"{where}.quantization: {name}", BITS[name].available(device)
    if found is None:
        others = [bits.name for bits in BITS.values() if bits.available(device)]
        raise UserError(
            f"{where}: needs a CUDA device, and this is {device.type}; "
            f"set it to {' or '.join([*others, 'none'])}"
        )
    if importlib.util.find_spec(found.package) is None:
        raise UserError(f"{where}: needs the package {found.package}: pip install {found.package}")
    return found


def for_pipeline(
    found: Quantization, dtype: torch.dtype, denoisers: Sequence[str], text_encoders: Sequence[str]
) -> "PipelineQuantizationConfig":
    """Make diffusers' configuration; named components that a pipeline does not have are ignored."""
    import diffusers  # slow, and not needed to ask a VLM

    options = found.options(dtype)
    own = {name: getattr(diffusers, found.config)(**options) for name in denoisers}
    theirs = {name: for_model(found, dtype) for name in text_encoders}
    return diffusers.PipelineQuantizationConfig(quant_mapping={**own, **theirs})


def for_model(found: Quantization, dtype: torch.dtype) -> Any:
    """Make transformers' configuration."""
    return getattr(transformers, found.config)(**found.options(dtype))


def quantize(module: nn.Module, found: Quantization) -> None:
    """Quantise a module that is in memory, in place; layers with a shared weight are left as they are."""
    weights = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and weights[id(layer.weight)] == 1:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, found.layer(layer))
