"""Vision-language models: loading a frozen one, and asking it questions about pictures, differentiably."""

from dualproc_cli.vlm.inquiry import AnswerScores, Inquiry
from dualproc_cli.vlm.load import Vlm, load_processor, load_vlm, prepare_vlm

__all__ = ["AnswerScores", "Inquiry", "Vlm", "load_processor", "load_vlm", "prepare_vlm"]
