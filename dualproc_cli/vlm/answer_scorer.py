"""Questions about a batch of pictures: differentiable log-likelihoods of their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.vlm.chat import Prompts, plan_prompts
from dualproc_cli.vlm.load import Vlm
from dualproc_cli.vlm.modes import ForwardMode, PictureForward, choose_mode

LARGEST_CHECKED = 1024  # pixels: the modes do not differ with the size, and larger pictures take long

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AnswerScores:
    """Log-likelihoods of the candidate answers; the lists have one entry per question asked.

    Attributes:
        log_likelihood: [B, A_q] sum of the answer tokens' log-probabilities, float32, differentiable.
        tokens: [A_q] number of tokens of each candidate, with the end-of-turn token if that is scored.
    """

    log_likelihood: list[Tensor]
    tokens: list[Tensor]


@dataclass(frozen=True)
class ScoringPlan:
    """How the answers about pictures of one size are computed.

    Attributes:
        mode: name of the forward mode; for a processor without a model, of the expected one.
        prefix_tokens: length of the prefix that is computed once for all questions; 0 without a shared one.
        suffix_tokens: for each question and candidate, how many tokens follow the prefix, with the answer.
    """

    mode: str
    prefix_tokens: int
    suffix_tokens: list[list[int]]


class AnswerScorer:
    """Scores the candidate answers of a set of questions about pictures.

    Usage::

        scorer = AnswerScorer(vlm, ["Is it night?", "What is there?"], [["Yes", "No"], ["a house"]])
        scores = scorer(images)              # images: [B, 3, H, W] in [0, 1]
        loss = -scores.log_likelihood[0][:, 0].mean()

    Before the first picture of a size is scored, the forward modes are compared with plain forward passes on
    noise, and the fastest one that agrees is used: ``cache`` runs the tokens that all questions share once,
    ``vision`` runs the vision tower once, and ``separate`` runs everything for each question.
    """

    def __init__(
        self,
        vlm: Vlm,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        mode: ForwardMode | None = None,
    ) -> None:
        """Store the questions and their answers; nothing is computed yet.

        Args:
            vlm: the model to ask, or its processor alone to `plan`.
            questions: texts.
            answers: each question's candidates: the expected answer, then those it competes with.
            mode: the forward mode for pictures of any size; None compares the modes and chooses one.
        """
        self.vlm = vlm
        self.questions = list(questions)
        self.answers = [list(candidates) for candidates in answers]
        self._prompts: dict[Sizes, Prompts] = {}
        self._modes: dict[Sizes, ForwardMode] = {}
        self._mode = mode

    def __call__(
        self, images: Tensor, beside: Tensor | None = None, asked: Sequence[int] | None = None
    ) -> AnswerScores:
        """Score the answers about each picture.

        Args:
            images: [B, 3, H, W] in [0, 1].
            beside: a second picture [3, h, w] in [0, 1], shown after each of ``images``.
            asked: indices of the questions to ask; all by default. The scores come in this order.

        Raises:
            UserError: see `prepare`.
        """
        height, width = images.shape[-2:]
        mode = self.prepare(height, width, beside)
        prompts = self._encoded(_sizes(height, width, beside))
        asked = range(len(self.questions)) if asked is None else asked
        log_p = PictureForward(self.vlm, prompts, beside)(mode, images, asked)
        lengths = [[len(answer) for answer in prompts.answers[q]] for q in asked]
        answers = iter(log_p.split([length for group in lengths for length in group], -1))
        return AnswerScores(
            log_likelihood=[torch.stack([next(answers).sum(-1) for _ in group], -1) for group in lengths],
            tokens=[torch.tensor(group, device=log_p.device) for group in lengths],
        )

    @torch.inference_mode(False)  # the comparison needs gradients, even if only scores are wanted
    def prepare(self, height: int, width: int, beside: Tensor | None = None) -> ForwardMode:
        """Choose the forward mode for pictures of ``height`` x ``width`` pixels.

        Scoring the first picture of a size does this too. Modes are compared on pictures whose sides have at
        most `LARGEST_CHECKED` pixels.

        Raises:
            UserError: a question or an answer cannot be encoded, or no gradient reaches the picture.
        """
        if self._mode is not None:
            return self._mode
        shrunk = min(1.0, LARGEST_CHECKED / max(height, width))
        height, width = max(round(shrunk * height), 1), max(round(shrunk * width), 1)
        sizes = _sizes(height, width, beside)
        if sizes not in self._modes:
            forward = PictureForward(self.vlm, self._encoded(sizes), beside)
            self._modes[sizes] = choose_mode(forward, height, width)
        return self._modes[sizes]

    def in_mode(self, mode: ForwardMode) -> "AnswerScorer":
        """Return a scorer of the same questions that always uses ``mode``, to compare modes."""
        return AnswerScorer(self.vlm, self.questions, self.answers, mode)

    def plan(self, height: int, width: int, beside: Tensor | None = None) -> ScoringPlan:
        """Return how answers about pictures of ``height`` x ``width`` pixels are computed.

        Raises:
            UserError: a question or an answer cannot be encoded.
        """
        prompts = self._encoded(_sizes(height, width, beside))
        expected = "cache" if prompts.holds_pictures else "vision"
        mode = expected if self.vlm.model is None else self.prepare(height, width, beside).name
        shared = prompts.shared if mode == "cache" else 0
        suffixes = [
            [len(prompt) - shared + len(answer) for answer in candidates]
            for prompt, candidates in zip(prompts.tokens, prompts.answers, strict=True)
        ]
        return ScoringPlan(mode, shared, suffixes)

    def _encoded(self, sizes: Sizes) -> Prompts:
        if sizes not in self._prompts:
            self._prompts[sizes] = plan_prompts(self.vlm.processor, self.questions, self.answers, sizes)
        return self._prompts[sizes]


def _sizes(height: int, width: int, beside: Tensor | None) -> Sizes:
    return ((height, width),) if beside is None else ((height, width), (beside.shape[-2], beside.shape[-1]))
