"""Wordings that ask for the opposite of a question, where they are known: those of the miniature's VLM."""

from dualproc_cli.spec import Question, VlmSpec
from dualproc_cli.spec.models import MINIATURE

MOST = 2  # of a question


def opposites(question: Question, vlm: VlmSpec) -> tuple[str, ...]:
    """Return wordings whose answer must be another one than that of ``question``, at most `MOST`."""
    if vlm.model != MINIATURE:
        return ()
    from dualproc_cli.miniature.world.language import WORDINGS

    known = next((wording for wording in WORDINGS if wording.text == question.question), None)
    if known is None:
        return ()
    found = [one.text for one in WORDINGS if (one.kind, one.sign) == (known.kind, -known.sign)]
    return tuple(text for text in found if text not in question.paraphrases)[:MOST]
