"""From a control spec to its loss: the views that the VLM is shown, the questions about them, the weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.jitter import Room, jittered
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.picture_files import load_picture
from dualproc_cli.spec import (
    ImagePrompt,
    LearnSpec,
    LoadedSpec,
    Question,
    RegionSpec,
    VisualPromptSpec,
)
from dualproc_cli.stages import stage
from dualproc_cli.visual_prompt import Window, composite, draw_layer, window
from dualproc_cli.vlm import AnswerScorer, Vlm, load_processor


@dataclass(frozen=True)
class LossReport:
    """The loss of one batch of pictures.

    Attributes:
        loss: scalar, sum_q w_q L_q / sum_q w_q, with its graph.
        losses: L_q by question name: scalars, detached.
        probabilities: P(answer) by question name: [B] in [0, 1], the mean over the views of a picture,
            detached; its definition depends on ``learn.objective``, see `dualproc_cli.objectives`.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    probabilities: dict[str, Tensor]


@dataclass(frozen=True)
class View:
    """What the VLM is shown for some of the questions: all of the picture or a region of it.

    Attributes:
        name: of the visual prompt, or "none".
        layer: [4, H, W] laid over the picture, or None.
        beside: [3, h, w] shown after the picture, or None.
        window: the part of the picture that is shown.
        size: height and width in pixels at which that part is shown.
        questions: the questions about it.
        scorer: scores the answers to all wordings of all questions.
    """

    name: str
    layer: Tensor | None
    beside: Tensor | None
    window: Window
    size: tuple[int, int]
    questions: tuple[Question, ...]
    scorer: AnswerScorer

    @cached_property
    def room(self) -> Room | None:
        """How far its pictures may be shifted; None without a visual prompt over them."""
        return None if self.layer is None else Room.around(self.layer)

    def overlaid(self, images: Tensor) -> Tensor:
        """Return pictures [B, 3, H, W] with the visual prompt over them."""
        return images if self.layer is None else composite(images, self.layer)

    def show(self, images: Tensor) -> Tensor:
        """Cut and resize pictures [B, 3, H, W] with their visual prompt to what is shown, [B, 3, h, w]."""
        part = self.window.cut(images)
        if self.size == self.window.size:
            return part
        # Averaging filters, unlike bicubic ones, stay within [0, 1].
        return F.interpolate(part, self.size, mode="bilinear", antialias=True)

    def wordings(self, rng: torch.Generator | None) -> list[int]:
        """Return one wording per question, as indices of the scorer: drawn by ``rng``, or the main one."""
        counts = [len(question.trained_wordings) for question in self.questions]
        starts = accumulate(counts[:-1], initial=0)
        if rng is None or max(counts) == 1:
            return list(starts)
        drawn = torch.rand(len(counts), generator=rng, device=rng.device).tolist()
        return [start + int(share * count) for start, share, count in zip(starts, drawn, counts, strict=True)]


class CompositeLoss:
    """The loss of a control spec for pictures of one size.

    Usage::

        criterion = compile_loss(loaded, vlm, height, width)
        report = criterion(images, rng)       # images: [B, 3, H, W] in [0, 1]
        report.loss.backward()

    L_q is the mean over pictures of the loss that ``learn.objective`` names in `OBJECTIVES`.
    """

    def __init__(self, views: list[View], learn: LearnSpec) -> None:
        self.views = views
        self.learn = learn

    def __call__(self, images: Tensor, rng: torch.Generator | None = None) -> LossReport:
        """Return the loss of all questions about images [B, 3, H, W] in [0, 1].

        While learning, ``rng`` draws the wordings and the jitter; the VLM is asked about all jittered views
        of the pictures in one batch, and the loss is their mean. Without it, the main wordings are asked
        about the pictures as they are.
        """
        objective, jitter = OBJECTIVES[self.learn.objective], self.learn.jitter
        total, weights = images.new_zeros(()), 0.0
        losses, probabilities = {}, {}
        for view in self.views:
            asked = view.wordings(rng)
            seen = view.overlaid(images)
            if rng is not None:
                seen = jittered(seen.repeat(jitter.views, 1, 1, 1), jitter, rng, view.room)
            scores = view.scorer(view.show(seen), view.beside, asked)
            for question, likelihood, tokens in zip(
                view.questions, scores.log_likelihood, scores.tokens, strict=True
            ):
                loss = objective.loss(likelihood, tokens).mean()
                total = total + question.weight * loss
                weights += question.weight
                losses[question.name] = loss.detach()
                found = objective.log_probability(likelihood.detach(), tokens).exp()
                probabilities[question.name] = found.view(-1, len(images)).mean(0)
        return LossReport(total / weights, losses, probabilities)


def compile_loss(loaded: LoadedSpec, vlm: Vlm, height: int, width: int) -> CompositeLoss:
    """Return the loss of a spec for pictures of ``height`` x ``width`` pixels.

    The VLM is checked first: its forward modes are compared for each view.

    Raises:
        UserError: a visual prompt cannot be drawn, or the VLM cannot be learned from.
    """
    found = list(views(loaded, vlm, height, width))
    stage(f"self-test of {loaded.spec.vlm.model}")
    for view in found:
        view.scorer.prepare(*view.size, view.beside)
    return CompositeLoss(found, loaded.spec.learn)


@dataclass(frozen=True)
class PlannedQuestion:
    """A question about a view.

    Attributes:
        name: the question's name in reports.
        question: its main wording.
        answer: the expected answer.
        suffix_tokens: how many tokens follow the view's shared prefix, the answer included.
        weight: its weight in the loss.
    """

    name: str
    question: str
    answer: str
    suffix_tokens: int
    weight: float


@dataclass(frozen=True)
class PlannedView:
    """A view and the questions about it.

    Attributes:
        view: the visual prompt's name, or "none".
        size: height and width in pixels at which it is shown.
        mode: name of the forward mode to expect, see `AnswerScorer`.
        prefix_tokens: length of the prefix that all its questions share.
        questions: in the order of the spec.
    """

    view: str
    size: tuple[int, int]
    mode: str
    prefix_tokens: int
    questions: tuple[PlannedQuestion, ...]


def plan(loaded: LoadedSpec) -> list[PlannedView]:
    """Return the questions of a spec view by view; loads the VLM's processor, not its weights.

    Raises:
        UserError: a visual prompt cannot be drawn, or the processor cannot be loaded.
    """
    size = loaded.spec.generator.height, loaded.spec.generator.width
    planned = []
    for view in views(loaded, load_processor(loaded.spec.vlm), *size):
        scoring = view.scorer.plan(*view.size, view.beside)
        questions = tuple(
            PlannedQuestion(
                name=question.name,
                question=question.question,
                answer=question.answer,
                suffix_tokens=scoring.suffix_tokens[main][0],
                weight=question.weight,
            )
            for question, main in zip(view.questions, view.wordings(None), strict=True)
        )
        planned.append(PlannedView(view.name, view.size, scoring.mode, scoring.prefix_tokens, questions))
    return planned


def views(loaded: LoadedSpec, vlm: Vlm, height: int, width: int) -> Iterator[View]:
    """Yield one view for each pair of visual prompt and region, in the order of the questions.

    Visual prompts that differ in their names only share a view.

    Args:
        loaded: the spec.
        vlm: the VLM to ask, or its processor alone; pictures are shown at its ``image_scale``.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Raises:
        UserError: a visual prompt cannot be drawn.
    """
    prompts = loaded.spec.visual_prompts
    groups: dict[tuple[VisualPromptSpec | None, RegionSpec | None], list[Question]] = {}
    for question in loaded.spec.asked:
        prompt = prompts[question.visual_prompt] if question.visual_prompt is not None else None
        groups.setdefault((prompt, question.region), []).append(question)
    for (prompt, region), questions in groups.items():
        shown = window(region, height, width, f"questions: {questions[0].name}")
        rows, columns = shown.size
        size = max(round(vlm.image_scale * rows), 1), max(round(vlm.image_scale * columns), 1)
        layer = beside = None
        if isinstance(prompt, ImagePrompt) and prompt.mode == "beside":
            beside = load_picture(loaded.folder / prompt.path).to(vlm.device)
        elif prompt is not None:
            layer = draw_layer(prompt, height, width, loaded.folder).to(vlm.device)
        wordings = [(text, question) for question in questions for text in question.trained_wordings]
        scorer = AnswerScorer(
            vlm,
            [text for text, _ in wordings],
            [[question.answer, *question.alternatives] for _, question in wordings],
        )
        yield View(questions[0].visual_prompt or "none", layer, beside, shown, size, tuple(questions), scorer)
