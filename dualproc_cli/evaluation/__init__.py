"""Before and after, on seeds and prompts never learned on: P(answer), independent measures, spread."""

from dualproc_cli.evaluation.bundle import evaluate_bundle
from dualproc_cli.evaluation.compare import Comparison, compare

__all__ = ["Comparison", "compare", "evaluate_bundle"]
