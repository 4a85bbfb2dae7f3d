"""Counters of seconds, FLOPs and bytes, and the FLOPs per second that a device reaches."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# Attention on the CPU, which torch's own counter leaves out.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is timed
ROUNDS = 10


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds that waits until ``device`` has done its work."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    return read


def flop_counter() -> FlopCounterMode:
    """Return a counter of the FLOPs of matrix products, convolutions and attention, forward and backward."""
    return FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)


def seconds_of(work: Callable[[], Any], read: Callable[[], float]) -> float:
    """Return how long ``work`` takes on the clock ``read``."""
    started = read()
    work()
    return read() - started


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a large square matrix product, the median of `ROUNDS`."""
    side = SIDES.get(device.type, 2048)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    read = clock(device)
    one @ other  # warms up
    return 2 * side**3 / statistics.median(seconds_of(lambda: one @ other, read) for _ in range(ROUNDS))


def forget_peak(device: torch.device) -> None:
    """Reset `peak_bytes` on CUDA; other devices cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory in bytes: on CUDA of tensors, elsewhere of this process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
