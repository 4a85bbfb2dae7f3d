"""Safetensors files whose bytes depend on what they hold alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dualproc_cli.files import require_regular


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with its header's keys sorted.

    The library writes the metadata in the order of a hash table, which differs from run to run, so that the
    same weights would have a different digest each time. The format is 8 bytes of header length, the header
    as JSON padded with spaces, and the tensors, which are addressed from the header's end.
    """
    data = save(dict(sorted(tensors.items())), dict(metadata))
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, on the CPU.

    Raises:
        OSError: the file does not exist or cannot be read, or it is not an ordinary file.
        SafetensorError: it is damaged.
    """
    require_regular(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        return tensors, file.metadata() or {}


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of weights for storage: float32, contiguous, on the CPU."""
    return {
        key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, tensor in tensors.items()
    }
