"""Before and after, on seeds and prompts never learned on: P(answer), independent measures, spread."""

from dualproc_cli.evaluation.compare import Comparison, compare
from dualproc_cli.evaluation.evaluate import evaluate_bundle

__all__ = ["Comparison", "compare", "evaluate_bundle"]
