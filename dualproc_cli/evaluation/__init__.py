"""Comparing the base generator with a learned control, on held-out seeds and prompts."""

from dualproc_cli.evaluation.album import Album, Page, SharedPictures
from dualproc_cli.evaluation.compare import compare_with_base
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.evaluate import evaluate_bundle
from dualproc_cli.evaluation.referee import Referee
from dualproc_cli.evaluation.right_and_clean import Shares
from dualproc_cli.evaluation.verdict import Verdict, verdict_of

__all__ = [
    "Album",
    "Comparison",
    "Page",
    "Referee",
    "SharedPictures",
    "Shares",
    "Verdict",
    "compare_with_base",
    "evaluate_bundle",
    "verdict_of",
]
