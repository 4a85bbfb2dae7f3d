"""Vision-language models: loading a frozen one, and scoring its answers about pictures, differentiably."""

from dualproc_cli.vlm.answer_scorer import AnswerScorer, AnswerScores, ScoringPlan
from dualproc_cli.vlm.load import Vlm, build_vlm, load_processor, load_vlm, prepare_vlm
from dualproc_cli.vlm.reduction import reduced, reduction
from dualproc_cli.vlm.seen import seen_by

__all__ = [
    "AnswerScorer",
    "AnswerScores",
    "ScoringPlan",
    "Vlm",
    "build_vlm",
    "load_processor",
    "load_vlm",
    "prepare_vlm",
    "reduced",
    "reduction",
    "seen_by",
]
