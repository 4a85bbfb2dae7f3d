"""Questions about a batch of pictures: differentiable log-likelihoods of their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.vlm.chat import Prompts, plan_prompts
from dualproc_cli.vlm.load import Vlm
from dualproc_cli.vlm.modes import Mode, Reader, choose

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AnswerScores:
    """How likely each candidate answer is; lists over the questions that were asked.

    Attributes:
        log_likelihood: [B, A_q] sum of the answer tokens' log-probabilities, float32, differentiable.
        tokens: [A_q] how many tokens each candidate has.
    """

    log_likelihood: list[Tensor]
    tokens: list[Tensor]


class AnswerScorer:
    """A set of questions about one kind of view.

    Usage::

        scorer = AnswerScorer(vlm, ["Is it night?", "What is there?"], [["Yes", "No"], ["a house"]])
        scores = scorer(images)              # images: [B, 3, H, W] in [0, 1]
        loss = -scores.log_likelihood[0][:, 0].mean()

    Before the first picture of a size is read, the ways to read it are compared with plain forward passes on
    noise, and the fastest that agrees is used: ``cache``, one pass for what the questions share; ``vision``,
    the vision tower once; ``separate``, everything for each question.
    """

    def __init__(
        self, vlm: Vlm, questions: Sequence[str], answers: Sequence[Sequence[str]], mode: Mode | None = None
    ) -> None:
        """``answers[q]`` are question q's candidates: the expected answer, then those it competes with.

        With ``mode``, pictures are read in it whatever their size, and nothing is compared.
        """
        self.vlm = vlm
        self.questions = list(questions)
        self.answers = [list(candidates) for candidates in answers]
        self._prompts: dict[Sizes, Prompts] = {}
        self._modes: dict[Sizes, Mode] = {}
        self._mode = mode

    def __call__(
        self, images: Tensor, beside: Tensor | None = None, asked: Sequence[int] | None = None
    ) -> AnswerScores:
        """Ask about each picture.

        Args:
            images: [B, 3, H, W] in [0, 1].
            beside: a second picture [3, h, w] in [0, 1], shown after each.
            asked: indices of the questions to ask; all by default. The scores come in this order.
        """
        height, width = images.shape[-2:]
        mode = self.prepare(height, width, beside)
        prompts = self._plan(_sizes(height, width, beside))
        asked = range(len(self.questions)) if asked is None else asked
        log_p = Reader(self.vlm, prompts, beside).read(mode.way, images, asked, mode.batched)
        lengths = [[len(answer) for answer in prompts.answers[q]] for q in asked]
        answers = iter(log_p.split([length for group in lengths for length in group], -1))
        return AnswerScores(
            log_likelihood=[torch.stack([next(answers).sum(-1) for _ in group], -1) for group in lengths],
            tokens=[torch.tensor(group, device=log_p.device) for group in lengths],
        )

    @torch.inference_mode(False)  # the check needs gradients, also where only scores are wanted
    def prepare(self, height: int, width: int, beside: Tensor | None = None) -> Mode:
        """Plan and check how pictures of a size, in pixels, are read; done by the first call at the latest.

        Raises:
            UserError: an answer cannot be asked for, or no gradient reaches the picture.
        """
        if self._mode is not None:
            return self._mode
        sizes = _sizes(height, width, beside)
        if sizes not in self._modes:
            self._modes[sizes] = choose(Reader(self.vlm, self._plan(sizes), beside), height, width)
        return self._modes[sizes]

    def in_mode(self, mode: Mode) -> "AnswerScorer":
        """The same questions, always read in ``mode``, which is not checked: to compare ways of reading."""
        return AnswerScorer(self.vlm, self.questions, self.answers, mode)

    def describe(self, height: int, width: int, beside: Tensor | None = None) -> dict[str, Any]:
        """What will be run for pictures of a size; of a processor without a model, the intended mode.

        Returns:
            ``mode``; ``prefix_tokens``, shared by all questions; ``suffix_tokens``, for each question
            and candidate how many tokens follow the prefix, the answer included.
        """
        prompts = self._plan(_sizes(height, width, beside))
        intended = "cache" if prompts.holds_pictures else "vision"
        mode = intended if self.vlm.model is None else self.prepare(height, width, beside).name
        shared = prompts.shared if mode == "cache" else 0
        return {
            "mode": mode,
            "prefix_tokens": shared,
            "suffix_tokens": [
                [len(prompt) - shared + len(answer) for answer in candidates]
                for prompt, candidates in zip(prompts.tokens, prompts.answers, strict=True)
            ],
        }

    def _plan(self, sizes: Sizes) -> Prompts:
        if sizes not in self._prompts:
            self._prompts[sizes] = plan_prompts(self.vlm.processor, self.questions, self.answers, sizes)
        return self._prompts[sizes]


def _sizes(height: int, width: int, beside: Tensor | None) -> Sizes:
    return ((height, width),) if beside is None else ((height, width), (beside.shape[-2], beside.shape[-1]))
