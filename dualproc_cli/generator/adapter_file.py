"""The adapter's file, which plain diffusers can load: ``pytorch_lora_weights.safetensors``.

The factor of the update is baked into its tensors, and its alpha is its rank: whatever reads it, with its
metadata or without, applies it at the same strength.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peft import LoraConfig
from safetensors import SafetensorError
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.generator.adapter_types import ADAPTER_TYPES, recognised
from dualproc_cli.generator.tensor_file import read_tensor_file, tensor_file
from dualproc_cli.spec.weights_files import ADAPTER_FILE

FILE_NAME = ADAPTER_FILE
# Where diffusers looks for the adapter's configuration. Without it, diffusers sets alpha to the rank.
METADATA_KEY = "lora_adapter_metadata"
# The class of the pipeline, and what other tools' names for its layers depend on in its denoiser's config.
BASE_KEYS = ("base_pipeline", "base_layers_per_block", "base_guidance_embeds")


@dataclass(frozen=True)
class AdapterFile:
    """An adapter in the form in which it is stored.

    Attributes:
        component: which component of the pipeline it adapts, ``transformer`` or ``unet``.
        type: a key of `ADAPTER_TYPES`.
        rank: the rank of the low-rank update.
        tensors: the type's tensors of every adapted layer (for LoRA, ``MODULE.lora_A.weight`` [rank, in] and
            ``MODULE.lora_B.weight`` [out, rank], with the update B A), float32, on the CPU.
        base: what is known of the pipeline that it adapts, by metadata key (see `BASE_KEYS`).
    """

    component: str
    type: str
    rank: int
    tensors: dict[str, Tensor]
    base: Mapping[str, str] = field(default_factory=dict)

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
        return ADAPTER_TYPES[self.type].config(self.rank, self.rank, list(self.layers))

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file; plain diffusers makes the adapter from them."""
        config = {
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": list(self.layers),
            **ADAPTER_TYPES[self.type].options,
        }
        return {
            "format": "pt",
            "rank": str(self.rank),
            "alpha": str(self.rank),
            **self.base,
            METADATA_KEY: json.dumps({f"{self.component}.{key}": value for key, value in config.items()}),
        }

    def named(self) -> dict[str, Tensor]:
        """Return the tensors under their names in the file, ``COMPONENT.MODULE.lora_A.weight``."""
        return {f"{self.component}.{key}": tensor for key, tensor in self.tensors.items()}

    def write(self, folder: Path) -> Path:
        """Write the adapter into ``folder``, atomically; the same adapter gives the same bytes."""
        path = folder / FILE_NAME
        write_atomically(path, tensor_file(self.named(), self.metadata()))
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
            rank = int(config["r"])
            if float(config["lora_alpha"]) != rank:
                raise ValueError("alpha")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: its metadata do not give the rank of one component and an alpha that equals it; "
                "learn it again"
            ) from error
        tensors = {key.partition(".")[2]: value for key, value in named.items()}
        base = {key: metadata[key] for key in BASE_KEYS if key in metadata}
        file = cls(component, recognised(config), rank, tensors, base)
        try:
            _ = file.layers
        except ValueError as error:
            raise UserError(
                f"{path}: its tensors are not those of a {file.type} adapter of rank {rank} ({error}); "
                "learn it again"
            ) from error
        return file
