"""Frozen weights of 8 or 4 bits: which package keeps them on which device."""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from diffusers import PipelineQuantizationConfig
from torch import nn

from dualproc_cli.errors import UserError

# Bytes of a weight: nf4 keeps a 32-bit scale for every 64 of them.
BYTES = {"int8": 1.0, "nf4": 0.56}


@dataclass(frozen=True)
class Quantization:
    """How the linear layers of a frozen model are kept.

    Attributes:
        config: the name of the class that says so, in diffusers as in transformers.
        options: what it is made of.
    """

    config: str
    options: dict[str, Any]

    def for_pipeline(self, denoisers: Sequence[str], text_encoders: Sequence[str]) -> Any:
        """What diffusers is given: those of the components that a pipeline has are quantised."""
        own = {name: getattr(diffusers, self.config)(**self.options) for name in denoisers}
        theirs = {name: self.for_model() for name in text_encoders}
        return PipelineQuantizationConfig(quant_mapping={**own, **theirs})

    def for_model(self) -> Any:
        """What transformers is given."""
        return getattr(transformers, self.config)(**self.options)

    def quantize(self, module: nn.Module) -> None:
        """Quantise a module that is in memory, in place; a layer that shares its weight stays whole."""
        weights = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
        for name, layer in list(module.named_modules()):
            if isinstance(layer, nn.Linear) and weights[id(layer.weight)] == 1:
                parent, _, own = name.rpartition(".")
                setattr(module.get_submodule(parent), own, self._quantized(layer))

    def _quantized(self, layer: nn.Linear) -> nn.Module:
        if self.config == "TorchAoConfig":
            from torchao.quantization import quantize_

            quantize_(layer, self.options["quant_type"])
            return layer
        import bitsandbytes as bnb

        made: Any
        size, bias = (layer.in_features, layer.out_features), layer.bias is not None
        if "load_in_8bit" in self.options:
            made = bnb.nn.Linear8bitLt(*size, bias=bias, has_fp16_weights=False)
            made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        else:
            made = bnb.nn.Linear4bit(*size, bias=bias, compute_dtype=layer.weight.dtype, quant_type="nf4")
            made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        made.bias = layer.bias
        return made.to(layer.weight.device)  # where it is moved to, it is quantised


def quantization(name: str, device: torch.device, dtype: torch.dtype, where: str) -> Quantization | None:
    """What a spec's ``quantization`` comes to: bitsandbytes on CUDA, torchao elsewhere; None for ``none``.

    Args:
        name: ``none``, ``int8`` or ``nf4``.
        device: where the model will be.
        dtype: of its other weights, and of what is computed with them.
        where: the part of the spec, for messages: ``generator`` or ``vlm``.

    Raises:
        UserError: the device cannot do it, or the package is not installed.
    """
    if name == "none":
        return None
    where = f"{where}.quantization: {name}"
    if device.type != "cuda" and name == "nf4":
        raise UserError(f"{where}: needs a CUDA device, and this is {device.type}; set it to int8 or none")
    package = "bitsandbytes" if device.type == "cuda" else "torchao"
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{where}: needs the package {package}: pip install {package}")
    if package == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return Quantization("TorchAoConfig", {"quant_type": Int8WeightOnlyConfig()})
    if name == "int8":
        return Quantization("BitsAndBytesConfig", {"load_in_8bit": True})
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return Quantization("BitsAndBytesConfig", options)
