"""An adapter as a file that plain diffusers loads: ``pytorch_lora_weights.safetensors``."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically

FILE_NAME = "pytorch_lora_weights.safetensors"
# Where diffusers looks for the adapter's configuration; without it, it takes alpha to be the rank.
METADATA_KEY = "lora_adapter_metadata"


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA adapter at rest."""

    component: str
    """Which component of the pipeline it adapts, ``transformer`` or ``unet``."""
    rank: int
    alpha: float
    """The update B A is multiplied by alpha / rank."""
    tensors: dict[str, Tensor]
    """``MODULE.lora_A.weight`` [rank, in] and ``MODULE.lora_B.weight`` [out, rank], float32, on the CPU."""

    @property
    def target_modules(self) -> list[str]:
        """Full names of the adapted modules, sorted."""
        return sorted({key.rpartition(".lora_")[0] for key in self.tensors})

    def write(self, folder: Path) -> Path:
        """Write the adapter into ``folder``, atomically; the same adapter gives the same bytes."""
        config = {"r": self.rank, "lora_alpha": self.alpha, "target_modules": self.target_modules}
        metadata = {
            "format": "pt",
            "rank": str(self.rank),
            "alpha": str(self.alpha),
            "scale": str(self.alpha / self.rank),
            METADATA_KEY: json.dumps({f"{self.component}.{key}": value for key, value in config.items()}),
        }
        named = {f"{self.component}.{key}": tensor for key, tensor in sorted(self.tensors.items())}
        path = folder / FILE_NAME
        write_atomically(path, _ordered(save(named, metadata)))
        return path

    @classmethod
    def read(cls, folder: Path) -> "AdapterFile":
        """Read the adapter of ``folder``.

        Raises:
            UserError: there is none, it is damaged, or its metadata lacks what `write` puts there.
        """
        path = folder / FILE_NAME
        try:
            with safe_open(path, framework="pt") as file:
                named = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
                metadata = file.metadata() or {}
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; expected the folder of an adapter bundle") from error
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: not a readable safetensors file ({error}); learn or copy it again"
            ) from error
        try:
            config = json.loads(metadata[METADATA_KEY])
            (component,) = {key.partition(".")[0] for key in (*config, *named)}
            rank, alpha = int(config[f"{component}.r"]), float(config[f"{component}.lora_alpha"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path}: its metadata give no rank and alpha of one component; learn it again"
            ) from error
        file = cls(component, rank, alpha, {key.partition(".")[2]: value for key, value in named.items()})
        if not file.is_whole:
            raise UserError(f"{path}: its tensors are no LoRA of rank {rank} alone; learn it again")
        return file

    @property
    def is_whole(self) -> bool:
        """Whether there is an A and a B of the stated rank for every module, and nothing else."""
        pairs = [(f"{target}.lora_A.weight", f"{target}.lora_B.weight") for target in self.target_modules]
        return {key for pair in pairs for key in pair} == self.tensors.keys() and all(
            self.tensors[down].shape[:1] == self.tensors[up].shape[1:2] == (self.rank,) for down, up in pairs
        )


def _ordered(data: bytes) -> bytes:
    """``data``, a safetensors file, with its metadata in order.

    The library writes them in the order of a hash table that is another one each time, and the same adapter
    would have another digest each time. The format: 8 bytes of header length, the header as JSON padded with
    spaces, the tensors (addressed from the header's end).
    """
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def to_rest(tensors: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """Copies of adapter weights that outlive the learning: float32, contiguous, on the CPU."""
    return {
        key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, tensor in tensors.items()
    }
