"""The adapter's file, which plain diffusers can load: ``pytorch_lora_weights.safetensors``."""

import json
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig
from safetensors import SafetensorError
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.generator.adapter_types import ADAPTER_TYPES, recognised
from dualproc_cli.generator.tensor_file import read_tensor_file, tensor_file

FILE_NAME = "pytorch_lora_weights.safetensors"
# Where diffusers looks for the adapter's configuration. Without it, diffusers sets alpha to the rank.
METADATA_KEY = "lora_adapter_metadata"


@dataclass(frozen=True)
class AdapterFile:
    """An adapter in the form in which it is stored.

    Attributes:
        component: which component of the pipeline it adapts, ``transformer`` or ``unet``.
        type: a key of `ADAPTER_TYPES`.
        rank: the rank of the low-rank update.
        alpha: the update is multiplied by alpha / rank.
        tensors: the type's tensors of every adapted layer (for LoRA, ``MODULE.lora_A.weight`` [rank, in] and
            ``MODULE.lora_B.weight`` [out, rank]), float32, on the CPU.
    """

    component: str
    type: str
    rank: int
    alpha: float
    tensors: dict[str, Tensor]

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """The number of inputs and outputs of every adapted layer, by its full name, sorted.

        Raises:
            ValueError: the tensors are not those of an adapter of this type and rank.
        """
        return ADAPTER_TYPES[self.type].layers(self.tensors, self.rank)

    @property
    def config(self) -> LoraConfig:
        """peft's configuration of the adapter."""
        return ADAPTER_TYPES[self.type].config(self.rank, self.alpha, list(self.layers))

    def write(self, folder: Path) -> Path:
        """Write the adapter into ``folder``, atomically; the same adapter gives the same bytes."""
        config = {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(self.layers),
            **ADAPTER_TYPES[self.type].options,
        }
        metadata = {
            "format": "pt",
            "rank": str(self.rank),
            "alpha": str(self.alpha),
            "scale": str(self.alpha / self.rank),
            METADATA_KEY: json.dumps({f"{self.component}.{key}": value for key, value in config.items()}),
        }
        named = {f"{self.component}.{key}": tensor for key, tensor in self.tensors.items()}
        path = folder / FILE_NAME
        write_atomically(path, tensor_file(named, metadata))
        return path

    @classmethod
    def read(cls, folder: Path) -> "AdapterFile":
        """Read the adapter of ``folder``.

        Raises:
            UserError: the file is missing or damaged, or was not written by `write`.
        """
        path = folder / FILE_NAME
        try:
            named, metadata = read_tensor_file(path)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; expected the folder of an adapter bundle") from error
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: not a readable safetensors file ({error}); learn or copy it again"
            ) from error
        try:
            config = json.loads(metadata[METADATA_KEY])
            (component,) = {key.partition(".")[0] for key in (*config, *named)}
            config = {key.removeprefix(f"{component}."): value for key, value in config.items()}
            rank, alpha = int(config["r"]), float(config["lora_alpha"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: its metadata do not give the rank and alpha of one component; learn it again"
            ) from error
        tensors = {key.partition(".")[2]: value for key, value in named.items()}
        file = cls(component, recognised(config), rank, alpha, tensors)
        try:
            _ = file.layers
        except ValueError as error:
            raise UserError(
                f"{path}: its tensors are not those of a {file.type} adapter of rank {rank} ({error}); "
                "learn it again"
            ) from error
        return file
