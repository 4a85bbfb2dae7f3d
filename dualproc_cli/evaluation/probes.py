"""Probes: what is asked besides, to find out whether the VLM's answers are true of the pictures.

An answer that is true survives another wording, the question for its opposite and small changes of the
picture, and is not what the VLM says of a blank picture, too. An answer that a VLM was fooled into often does
not survive them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, compile_loss
from dualproc_cli.evaluation.ask import ask
from dualproc_cli.measures import other_wordings
from dualproc_cli.pictures import BLANK_GRAY
from dualproc_cli.spec import LoadedSpec, Question, opposite_answer
from dualproc_cli.vlm import Vlm

PERTURBED, BLANK = "perturbed", "blank picture"
HELD_OUT_WORDINGS, OPPOSITE_WORDINGS = "held-out wordings", "opposite wordings"
PROBES = (PERTURBED, HELD_OUT_WORDINGS, OPPOSITE_WORDINGS, BLANK)  # those that a verdict goes by
EDGE = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class OtherWordings:
    """Questions that were never learned on.

    Attributes:
        loss: asks them, by names of its own.
        sources: for each of these names, the probe that it belongs to and the question of the spec.
    """

    loss: CompositeLoss
    sources: Mapping[str, tuple[str, str]]

    def ask(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return P(answer) [N] about images [N, 3, H, W] by probe and question: means of its wordings."""
        asked: dict[tuple[str, str], list[Tensor]] = {}
        for name, probabilities in ask(self.loss, images).items():
            asked.setdefault(self.sources[name], []).append(probabilities)
        found: dict[str, dict[str, Tensor]] = {}
        for (probe, question), values in asked.items():
            found.setdefault(probe, {})[question] = torch.stack(values).mean(0)
        return found


def compile_other_wordings(loaded: LoadedSpec, vlm: Vlm, height: int, width: int) -> OtherWordings | None:
    """Compile the wordings of a spec's questions that are not trained on; None if it has none.

    Args:
        loaded: the spec.
        vlm: the VLM that was trained against.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
    """
    spec, asked, sources = loaded.spec, list[Question](), dict[str, tuple[str, str]]()
    for question in spec.questions:
        held_out, opposite = other_wordings(spec, question)
        turned = question.model_copy(update=_turned(question))
        for probe, texts, source in (
            (HELD_OUT_WORDINGS, held_out, question),
            (OPPOSITE_WORDINGS, opposite, turned),
        ):
            for text in texts:
                name = f"{question.name}/{len(asked)}"  # no question of a spec has such a name
                asked.append(source.model_copy(update={"name": name, "question": text, "paraphrases": ()}))
                sources[name] = probe, question.name
    if not asked:
        return None
    others = replace(loaded, spec=spec.asking_only(tuple(asked)))
    return OtherWordings(compile_loss(others, vlm, height, width), sources)


def _turned(question: Question) -> dict[str, object]:
    """Return the answers to the opposite of a question."""
    turned = opposite_answer(question.answer, question.alternatives)
    return {"answer": turned, "alternatives": (question.answer,)}


def ask_about_blank(loss: CompositeLoss, images: Tensor) -> dict[str, float]:
    """Return P(answer) of every question about one gray picture of the size of images [N, 3, H, W]."""
    found = ask(loss, torch.full_like(images[:1], BLANK_GRAY))
    return {name: float(value) for name, value in found.items()}


def corrected(probabilities: Mapping[str, Tensor], blank: Mapping[str, float]) -> dict[str, Tensor]:
    """Return P(answer) [N] by question, less what the VLM says of a blank picture anyway.

    logit p' = logit p - max(0, logit p_blank): an answer that the blank picture gets as well is no evidence.
    It is the contextual calibration of Zhao et al. (2021, arXiv 2102.09690), applied in one direction: that
    the VLM denies it of the blank picture makes an answer no surer.
    """

    def logit(values: Tensor) -> Tensor:
        return values.double().logit(eps=EDGE)

    return {
        name: (logit(values) - logit(torch.tensor(blank[name])).clamp(min=0)).sigmoid().float()
        for name, values in probabilities.items()
    }
