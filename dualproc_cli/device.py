"""The device and the precision of tensors, and deterministic kernels: decided here and nowhere else."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
import torch.utils.deterministic

from dualproc_cli.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str | None, key: str = "--device") -> torch.device:
    """Return the device called ``name`` (``cpu``, ``cuda``, ``cuda:1``, ``mps``), or the fastest one here.

    ``key`` is what named it, for the message. For CUDA, float32 matrix products use TF32 from then on.

    Raises:
        UserError: the name is unknown, or this machine does not have the device.
    """
    device = _pick(name, key)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return device


def _pick(name: str | None, key: str) -> torch.device:
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = _available()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or str(device) not in available:
        raise UserError(f"{key} {name}: no such device here (expected one of: {', '.join(available)})")
    return device


def all_devices(first: torch.device) -> list[str]:
    """Return the names of ``first`` and, for CUDA, of the other devices of this machine."""
    if first.type != "cuda":
        return [str(first)]
    own, count = first.index or 0, torch.cuda.device_count()
    return [f"cuda:{index}" for index in (own, *(other for other in range(count) if other != own))]


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision called ``name``; ``auto`` is bfloat16 on CUDA and float32 elsewhere.

    Raises:
        UserError: the name is unknown.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UserError(f"dtype: unknown value {name!r} (expected auto, {', '.join(DTYPES)})")
    return DTYPES[name]


@contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic kernels inside the block, except for operations that have none.

    Learning runs in it, and so does `bench`, which measures learning. Drawing and evaluating do not: they run
    no backward pass, which is where kernels differ from run to run, and their pictures must equal those of
    plain diffusers with its default kernels. In this mode torch also fills new buffers with NaN, to reveal
    code that reads them unset. That is switched off, since it writes every buffer once more.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    buffers: Any = torch.utils.deterministic
    fill = buffers.fill_uninitialized_memory
    with warnings.catch_warnings():
        # A resize's backward has no deterministic kernel on CUDA.
        warnings.filterwarnings("ignore", message=".*deterministic")
        torch.use_deterministic_algorithms(True, warn_only=True)
        buffers.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            buffers.fill_uninitialized_memory = fill


def free_bytes(device: torch.device) -> int:
    """Return the bytes that this process could still use on ``device``; for the CPU, those of the machine."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return psutil.virtual_memory().available


def release(device: torch.device) -> None:
    """Give the memory of models that nothing refers to any more back to ``device``."""
    gc.collect()  # modules and their hooks refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that a device, the CPU included, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _available() -> list[str]:
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names += ["mps"]
    return names
