"""What a run would learn from: base pictures, and what the VLM says about them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, View, compile_loss
from dualproc_cli.drawing import draw_pictures, validation_seeds
from dualproc_cli.generator import Generator
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.memory import plan_learning
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.preview.altering import altered_views
from dualproc_cli.preview.asking import BATCH, NOTHING, Asked, ask, gradient_sizes, nothing
from dualproc_cli.preview.findings import Finding, overlay_change, question_findings
from dualproc_cli.preview.opposites import opposites
from dualproc_cli.preview.overlays import overlay_findings
from dualproc_cli.preview.sheet import preview_sheet
from dualproc_cli.spec import ControlSpec, LoadedSpec, Question
from dualproc_cli.stages import stage
from dualproc_cli.vlm import Vlm

PROMPTS, PICTURES = 8, 16  # at most, by default
ALTERED = 8  # pictures that are also shown with an altered visual prompt
DIFFERENTIATED = 4  # pictures
FIRST_LOOK = 4  # pictures that `learn` begins with


@dataclass(frozen=True)
class Preview:
    """What was found before learning.

    Attributes:
        name: the spec's.
        prompts: that were drawn.
        seeds: that each prompt was drawn at.
        asked: one entry for each question.
        findings: what to think of before learning, and why.
        sheet: the pictures as the VLM sees them.
    """

    name: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    asked: list[Asked]
    findings: list[Finding]
    sheet: Image.Image

    def as_json(self) -> dict[str, Any]:
        """Return all numbers as plain data that `json.dumps` takes."""
        return {
            "spec": self.name,
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "questions": {one.question.name: _numbers(one) for one in self.asked},
            "findings": [vars(finding) for finding in self.findings],
        }


def preview(loaded: LoadedSpec, device: torch.device, seeds: int | None = None) -> Preview:
    """Draw base pictures, ask all questions about them in every wording, and find what is wrong with these.

    Nothing is learned. The models are loaded as a run would load them.

    Args:
        loaded: the spec.
        device: where the models run.
        seeds: pictures per prompt; as many as make about 16 pictures by default.

    Raises:
        UserError: a model cannot be loaded, or a visual prompt cannot be drawn.
    """
    own = {question.name: 1 + len(question.paraphrases) for question in loaded.spec.questions}
    loaded = replace(loaded, spec=_with_opposites(loaded.spec))
    spec = loaded.spec
    prompts = spec.prompts.train[:PROMPTS]
    numbers = validation_seeds(seeds or max(2, PICTURES // len(prompts)))
    plan = plan_learning(loaded, device)
    generator = plan.load_generator()
    images = base_pictures(generator, prompts, numbers)
    del generator  # before the VLM takes its memory
    vlm = plan.load_vlm()
    criterion = compile_loss(loaded, vlm, *images.shape[-2:])
    asked = [one for view in criterion.views for one in _ask_all(view, images, criterion, loaded, own)]
    findings = [*question_findings(asked), *_about_overlays(criterion, spec, vlm)]
    stage("drawing what the VLM sees")
    return Preview(
        spec.name, prompts, tuple(numbers), asked, findings, preview_sheet(asked, images, loaded, vlm)
    )


def first_look(spec: ControlSpec, generator: Generator, criterion: CompositeLoss, vlm: Vlm) -> list[Finding]:
    """Return what a few pictures show: answers that are true already or biased, overlays that are too large.

    It takes no random numbers from anywhere and changes no weights.
    """
    prompts = spec.prompts.train[:FIRST_LOOK]
    images = base_pictures(generator, prompts, validation_seeds(-(-FIRST_LOOK // len(prompts))))
    names = {question.name: 1 + len(question.paraphrases) for question in spec.questions}
    asked = [
        one
        for view in criterion.views
        for one in _ask(view, images, criterion, names)
        if one.question.name in names
    ]
    return [*question_findings(asked), *_about_overlays(criterion, spec, vlm)]


@torch.no_grad()
def base_pictures(generator: Generator, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Return a picture of each prompt at the first seed, then at the second, and so on: [S * P, 3, H, W]."""
    with uncompiled() if generator.spec.compile else nullcontext():
        drawn = []
        for prompt in prompts:
            stage(f"drawing {prompt}")
            drawn.append(torch.stack(list(draw_pictures(generator, prompt, seeds, BATCH))))
    return torch.stack(drawn, 1).flatten(0, 1)


def _with_opposites(spec: ControlSpec) -> ControlSpec:
    """Return a spec that asks the opposite of each question too, and nothing but its own questions."""
    questions = tuple(
        question.model_copy(update={"paraphrases": (*question.paraphrases, *opposites(question, spec.vlm))})
        for question in spec.questions
    )
    keep = spec.learn.keep.model_copy(update={"clean": 0.0})
    learn = spec.learn.model_copy(update={"keep": keep})
    return spec.model_copy(update={"questions": questions, "learn": learn})


def _ask(view: View, images: Tensor, criterion: CompositeLoss, own: Mapping[str, int]) -> list[Asked]:
    """Ask a view's questions about the pictures, and about pictures that show nothing."""
    objective = OBJECTIVES[criterion.learn.objective]
    pictures, blank = (ask(view, shown, objective) for shown in (images, nothing(images)))
    return [
        Asked(question, view, own.get(question.name, 1), pictures.of(wordings), blank.of(wordings))
        for question, wordings in _of_each(view)
    ]


def _ask_all(
    view: View, images: Tensor, criterion: CompositeLoss, loaded: LoadedSpec, own: Mapping[str, int]
) -> list[Asked]:
    """Ask as `_ask` does, and with other visual prompts; find the gradients."""
    stage(f"asking {', '.join(question.name for question in view.questions)}")
    objective = OBJECTIVES[criterion.learn.objective]
    altered = {
        how: ask(other, images[:ALTERED], objective) for how, other in altered_views(view, loaded).items()
    }
    gradients = gradient_sizes(view, images[:DIFFERENTIATED], objective)
    parts = zip(_ask(view, images, criterion, own), _of_each(view), gradients, strict=True)
    return [
        replace(one, altered={how: found.of(wordings) for how, found in altered.items()}, gradient=gradient)
        for one, (_, wordings), gradient in parts
    ]


def _of_each(view: View) -> list[tuple[Question, slice]]:
    """Return each of the view's questions with its places among the wordings that are asked."""
    starts = view.wordings(None)
    ends = [
        start + 1 + len(question.paraphrases) for start, question in zip(starts, view.questions, strict=True)
    ]
    return [
        (question, slice(start, end))
        for question, start, end in zip(view.questions, starts, ends, strict=True)
    ]


def _about_overlays(criterion: CompositeLoss, spec: ControlSpec, vlm: Vlm) -> Iterator[Finding]:
    for view in criterion.views:
        yield from overlay_findings(view, spec.visual_prompts.get(view.questions[0].visual_prompt or ""), vlm)


def _numbers(asked: Asked) -> dict[str, Any]:
    """Return what was found about a question as plain data."""
    probability = asked.pictures.probability
    texts = (asked.question.question, *asked.question.paraphrases)
    rows = [
        {
            "text": text,
            "opposite": index >= asked.own,
            "probabilities": [round(value, 6) for value in probability[index].tolist()],
            **dict(zip(NOTHING, asked.nothing.probability[index].tolist(), strict=True)),
        }
        for index, text in enumerate(texts)
    ]
    return {
        "visual_prompt": asked.question.visual_prompt,
        "answer": asked.question.answer,
        "alternatives": list(asked.question.alternatives),
        "answer_tokens": int(asked.pictures.tokens[0]),
        "named": asked.pictures.named[0].mean().item(),
        "wordings": rows,
        "altered": {how: found.probability[0].mean().item() for how, found in asked.altered.items()},
        "altered_nats": overlay_change(asked),
        "gradient_nats": asked.gradient,
    }
