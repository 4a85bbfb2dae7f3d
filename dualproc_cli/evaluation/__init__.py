"""Comparing the base generator with a learned control, on held-out seeds and prompts."""

from dualproc_cli.evaluation.compare import compare_with_base
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.evaluate import evaluate_bundle

__all__ = ["Comparison", "compare_with_base", "evaluate_bundle"]
