"""The preview: base pictures, and all that the VLM says about them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, View, compile_loss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.measures import other_wordings
from dualproc_cli.memory import plan_learning
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.preview.altering import altered_views
from dualproc_cli.preview.asking import NOTHING, Asked, ask, gradient_sizes
from dualproc_cli.preview.findings import Finding, overlay_change, question_findings
from dualproc_cli.preview.first import about_overlays, ask_about, base_pictures, wordings_of
from dualproc_cli.preview.sheet import preview_sheet
from dualproc_cli.spec import ControlSpec, LoadedSpec, Question
from dualproc_cli.stages import stage

PROMPTS, PICTURES = 8, 16  # at most, by default
OPPOSITES = 2  # wordings of the opposite, of a question
ALTERED = 8  # pictures that are also shown with an altered visual prompt
DIFFERENTIATED = 4  # pictures


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
    own = {question.name: len(question.trained_wordings) for question in loaded.spec.questions}
    loaded = replace(loaded, spec=_with_opposites(loaded.spec))
    spec = loaded.spec
    prompts = spec.prompts.train[:PROMPTS]
    numbers = validation_seeds(seeds or max(2, PICTURES // len(prompts)))
    plan = plan_learning(loaded, device)
    generator = plan.load_generator()
    images = base_pictures(generator, prompts, numbers)
    del generator  # the VLM may take its memory
    vlm = plan.load_vlm()
    criterion = compile_loss(loaded, vlm, *images.shape[-2:])
    asked = [one for view in criterion.views for one in _ask_all(view, images, criterion, loaded, own)]
    findings = [*question_findings(asked), *about_overlays(criterion, spec, vlm)]
    stage("drawing what the VLM sees")
    return Preview(
        spec.name, prompts, tuple(numbers), asked, findings, preview_sheet(asked, images, loaded, vlm)
    )


def _with_opposites(spec: ControlSpec) -> ControlSpec:
    """Return a spec that asks the opposite of each question too, and nothing but its own questions."""
    questions = tuple(
        question.model_copy(update={"paraphrases": (*question.paraphrases, *_opposites(spec, question))})
        for question in spec.questions
    )
    return spec.asking_only(questions)


def _opposites(spec: ControlSpec, question: Question) -> tuple[str, ...]:
    _, found = other_wordings(spec, question)
    return found[:OPPOSITES]


def _ask_all(
    view: View, images: Tensor, criterion: CompositeLoss, loaded: LoadedSpec, own: Mapping[str, int]
) -> list[Asked]:
    """Ask as `ask_about` does, and with other visual prompts; find the gradients."""
    stage(f"asking {', '.join(question.name for question in view.questions)}")
    objective = OBJECTIVES[criterion.learn.objective]
    altered = {
        how: ask(other, images[:ALTERED], objective) for how, other in altered_views(view, loaded).items()
    }
    gradients = gradient_sizes(view, images[:DIFFERENTIATED], objective)
    parts = zip(ask_about(view, images, criterion, own), wordings_of(view), gradients, strict=True)
    return [
        replace(one, altered={how: found.of(wordings) for how, found in altered.items()}, gradient=gradient)
        for one, (_, wordings), gradient in parts
    ]


def _numbers(asked: Asked) -> dict[str, Any]:
    """Return what was found about a question as plain data."""
    probability = asked.pictures.probability
    rows = [
        {
            "text": text,
            "opposite": index >= asked.own,
            "probabilities": [round(value, 6) for value in probability[index].tolist()],
            **dict(zip(NOTHING, asked.nothing.probability[index].tolist(), strict=True)),
        }
        for index, text in enumerate(asked.question.trained_wordings)
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
