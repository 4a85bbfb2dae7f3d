"""What a step of learning costs: seconds, FLOPs, memory, part by part; and what the shared prefix saves."""

from dualproc_cli.bench.bench import bench

__all__ = ["bench"]
