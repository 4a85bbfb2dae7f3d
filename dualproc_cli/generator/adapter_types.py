"""The types of adapters: how peft is told to make one, and what its tensors are called and shaped.

Adding a type takes an entry in `ADAPTER_TYPES` and its name in the spec's ``learn.adapter.type``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig
from torch import Tensor


@dataclass(frozen=True)
class AdapterTensor:
    """One of the tensors with which an adapter changes a layer.

    Attributes:
        name: in an adapter file, after the layer's name.
        parameter: in the model, after the layer's name, with ``{}`` for the adapter's.
        shape: the leading dimensions, each ``rank``, ``in`` or ``out`` (of the layer). A convolution's
            tensors have further ones.
    """

    name: str
    parameter: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class AdapterType:
    """A type of adapter.

    Attributes:
        tensors: of one adapted layer.
        options: what peft's ``LoraConfig`` is given beside rank, alpha and target modules. Adapter files
            carry them in their metadata, by which the type is recognised.
    """

    tensors: tuple[AdapterTensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(self, rank: int, alpha: float, target_modules: Sequence[str]) -> LoraConfig:
        """Return peft's configuration of an adapter whose update is multiplied by alpha / rank."""
        # peft takes a float for alpha too; its annotation does not say so.
        return LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules), **self.options)  # type: ignore[arg-type]

    def layers(self, tensors: Mapping[str, Tensor], rank: int) -> dict[str, tuple[int, int]]:
        """Return the inputs and outputs of every layer that ``tensors`` adapt, by the layer's name.

        Args:
            tensors: of one adapter, under their names in an adapter file.
            rank: of the adapter.

        Raises:
            ValueError: a tensor is missing, has an unknown name or contradicts another one's shape.
        """
        sizes: dict[str, dict[str, int]] = {}
        for key, tensor in tensors.items():
            known = [part for part in self.tensors if key.endswith(f".{part.name}")]
            if not known or tensor.ndim < len(known[0].shape):
                raise ValueError(key)
            found = sizes.setdefault(key.removesuffix(f".{known[0].name}"), {"rank": rank})
            for dimension, size in zip(known[0].shape, tensor.shape, strict=False):
                if found.setdefault(dimension, size) != size:
                    raise ValueError(key)
        expected = {f"{layer}.{part.name}" for layer in sizes for part in self.tensors}
        if missing := expected - tensors.keys():
            raise ValueError(min(missing))
        return {layer: (found["in"], found["out"]) for layer, found in sorted(sizes.items())}


# LoRA (Hu et al. 2022): W' = W + alpha / rank * B A, with B zero at the start.
LORA = AdapterType(
    (
        AdapterTensor("lora_A.weight", "lora_A.{}.weight", ("rank", "in")),
        AdapterTensor("lora_B.weight", "lora_B.{}.weight", ("out", "rank")),
    )
)
ADAPTER_TYPES = {"lora": LORA}


def file_name(parameter: str, adapter: str) -> str | None:
    """Return the name in an adapter file of a model's ``parameter``; None if it is not ``adapter``'s."""
    for kind in ADAPTER_TYPES.values():
        for tensor in kind.tensors:
            suffix = "." + tensor.parameter.format(adapter)
            if parameter.endswith(suffix):
                return f"{parameter.removesuffix(suffix)}.{tensor.name}"
    return None


def recognised(metadata: Mapping[str, Any]) -> str:
    """Return the type of the adapter whose peft configuration is in ``metadata``: that of most options."""
    fitting = [name for name, kind in ADAPTER_TYPES.items() if kind.options.items() <= metadata.items()]
    return max(fitting, key=lambda name: len(ADAPTER_TYPES[name].options))
