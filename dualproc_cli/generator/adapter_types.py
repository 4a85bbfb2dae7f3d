"""The types of adapters: their configuration for peft, and the names and shapes of their tensors.

Adding a type takes an entry in `ADAPTER_TYPES` and its name in the spec's ``learn.adapter.type``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig
from torch import Tensor


@dataclass(frozen=True)
class AdapterTensor:
    """A tensor that an adapter adds to a layer.

    Attributes:
        name: its name in an adapter file, after the layer's name.
        parameter: its name in the model, after the layer's name; ``{}`` stands for the adapter's name.
        shape: its leading dimensions, each ``rank``, or the layer's ``in`` or ``out``. A convolution's
            tensors have more dimensions.
        scaled: whether the update is proportional to it, so that a factor can be baked into it.
    """

    name: str
    parameter: str
    shape: tuple[str, ...]
    scaled: bool = False


@dataclass(frozen=True)
class AdapterType:
    """A type of adapter.

    Attributes:
        tensors: the tensors of one adapted layer.
        options: arguments of peft's ``LoraConfig`` besides rank, alpha and target modules. Adapter files
            hold them in their metadata; the type is recognised by them.
    """

    tensors: tuple[AdapterTensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(
        self, rank: int, alpha: float, target_modules: Sequence[str], init: str = "kaiming"
    ) -> LoraConfig:
        """Return peft's configuration of an adapter whose update is multiplied by alpha / rank.

        ``init`` is how its first matrix is drawn: gaussian or kaiming.
        """
        return LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # peft takes a float too
            target_modules=list(target_modules),
            init_lora_weights=True if init == "kaiming" else "gaussian",
            **self.options,
        )

    def scaled(self, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return ``tensors`` of an adapter file whose update is multiplied by ``factor``."""
        endings = tuple(f".{part.name}" for part in self.tensors if part.scaled)
        return {key: value * factor if key.endswith(endings) else value for key, value in tensors.items()}

    def layers(self, tensors: Mapping[str, Tensor], rank: int) -> dict[str, tuple[int, int]]:
        """Return the number of inputs and outputs of every layer that ``tensors`` adapt, by its name.

        Args:
            tensors: the tensors of one adapter, under their names in an adapter file.
            rank: the adapter's rank.

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
        AdapterTensor("lora_B.weight", "lora_B.{}.weight", ("out", "rank"), scaled=True),
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
    """Return the adapter type whose options are all in ``metadata``; of several, the one with the most."""
    fitting = [name for name, kind in ADAPTER_TYPES.items() if kind.options.items() <= metadata.items()]
    return max(fitting, key=lambda name: len(ADAPTER_TYPES[name].options))
