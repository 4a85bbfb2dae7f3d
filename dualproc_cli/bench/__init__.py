"""Measuring what a step of learning costs, part by part, and what the shared prefix saves."""

from dualproc_cli.bench.bench import bench
from dualproc_cli.bench.report import BenchReport

__all__ = ["BenchReport", "bench"]
