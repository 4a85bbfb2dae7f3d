"""The control spec: what is drawn and asked, and the parts that other files hold."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dualproc_cli.spec.fields import (
    PRESET,
    Answer,
    Fraction,
    Name,
    SpecModel,
    Text,
    not_a_truth_value,
    number,
    whole,
)
from dualproc_cli.spec.learn import STEERED, LearnSpec, Where
from dualproc_cli.spec.measures import AnyMeasure
from dualproc_cli.spec.models import GeneratorSpec, Memory, VlmSpec
from dualproc_cli.spec.visual_prompts import PalettePrompt, VisualPromptSpec


class PromptsSpec(SpecModel):
    """What the generator is asked to draw."""

    train: tuple[Text, ...] = Field(
        min_length=1, description="Prompts for learning; each picture is drawn from a random one."
    )
    held_out: tuple[Text, ...] = Field(
        default=(), description="Prompts that are never trained on, for evaluation."
    )
    variety: tuple[Text, ...] = Field(
        default=(),
        description="Further prompts for learning, so that the control holds for others than those of train: "
        "a share learn.variety of the pictures is drawn from them while the answers move the weights. Left "
        "out are those that are held out, and those without a word that the questions share with all of "
        "train. What is steered may take their words (learn.steer.from_prompts)." + PRESET,
    )

    @property
    def all(self) -> tuple[Text, ...]:
        """All prompts, those for learning first."""
        return (*self.train, *self.held_out)


class RegionSpec(SpecModel):
    """A part of the picture. Its edges are fractions of the picture, measured from the top left."""

    left: Fraction = Field(default=0.0, description="Left edge.")
    top: Fraction = Field(default=0.0, description="Top edge.")
    right: Fraction = Field(default=1.0, description="Right edge, beyond the left one.")
    bottom: Fraction = Field(default=1.0, description="Bottom edge, below the top one.")


def opposite_answer(answer: str, alternatives: Sequence[str]) -> str | None:
    """Return the answer to the opposite of a question: the first alternative, else No for Yes and Yes for No.

    It is None for any other answer without alternatives.
    """
    if alternatives:
        return alternatives[0]
    return {"yes": "No", "no": "Yes"}.get(answer.strip(" .!").lower())


class Question(SpecModel):
    """A question about the picture and the answer that is wanted."""

    name: Name = Field(description="Name in reports; unique within the spec.")
    question: Text = Field(description="What the VLM is asked about the picture.")
    answer: Answer = Field(
        description="The expected answer: any text the VLM could give, taken as it is written."
    )
    alternatives: tuple[Answer, ...] = Field(
        default=(), description="The answers that the expected one competes with."
    )
    visual_prompt: Name | None = Field(
        default=None, description="Name of the visual prompt that the question refers to."
    )
    region: RegionSpec | None = Field(
        default=None,
        description="The part of the picture, visual prompt included, that the VLM is shown; null is all.",
    )
    weight: Annotated[float, number(ge=0, le=1e6)] = Field(
        default=1.0, description="Weight of the question in the loss."
    )
    paraphrases: tuple[Text, ...] = Field(
        default=(), description="Other wordings, drawn at random while learning."
    )
    held_out_paraphrases: tuple[Text, ...] = Field(
        default=(),
        description="Wordings that are never trained on: a control that only one wording believes in fails.",
    )
    opposites: tuple[Text, ...] = Field(
        default=(),
        description="Wordings that ask for the opposite, never trained on: the answer to them has to turn, "
        "to the first alternative or between Yes and No.",
    )

    def ending_in(self, suffix: str) -> "Question":
        """Return the question with ``suffix`` after each of its wordings."""

        def ending(wordings: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(f"{wording} {suffix}" for wording in wordings)

        return self.model_copy(
            update={
                "question": f"{self.question} {suffix}",
                "paraphrases": ending(self.paraphrases),
                "held_out_paraphrases": ending(self.held_out_paraphrases),
                "opposites": ending(self.opposites),
            }
        )

    @property
    def trained_wordings(self) -> tuple[str, ...]:
        """The main wording, and those drawn at random while learning."""
        return (self.question, *self.paraphrases)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that the VLM may be given: wordings and answers."""
        never_trained = (*self.held_out_paraphrases, *self.opposites)
        return (*self.trained_wordings, *never_trained, self.answer, *self.alternatives)


# What is asked besides a spec's questions where `KeepSpec.clean` has a weight.
CLEAN = Question(
    name="clean",
    question="Is the picture clean?",
    answer="Yes",
    alternatives=("No",),
    paraphrases=("Is the picture free of artifacts?",),
)


class EvaluateSpec(SpecModel):
    """How success is measured."""

    seeds: Annotated[int, whole(ge=1, le=100_000)] = Field(
        default=32, description="Held-out seeds per prompt."
    )
    vlm: VlmSpec | None = Field(default=None, description="A second VLM that was not trained against.")
    measures: tuple[AnyMeasure, ...] = Field(
        default=(),
        description="Measures that do not use the VLM: names of the miniature's measures, or mappings. "
        "Without any, pictures of the miniature get those that can judge the questions.",
    )


def same_text(text: str) -> str:
    """Return a text so that those that differ in spaces and capitals alone are equal."""
    return " ".join(text.casefold().split())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


class ControlSpec(SpecModel):
    """A visual control: generator, VLM, prompts, visual prompts, questions, and how to learn and to evaluate.

    The model checks each value alone. ``load_spec`` also checks how values relate to each other and to files,
    and fills in the presets: use it, except in tests.
    """

    version: Annotated[Literal[1], BeforeValidator(not_a_truth_value)] = Field(
        default=1, description="Version of this language."
    )
    name: Name = Field(description="Name of the control: lower-case letters, digits and hyphens.")
    description: Annotated[str, Field(max_length=4000)] = Field(
        default="", description="What the control does, in a sentence."
    )
    preset: Literal["auto", "paper"] = Field(
        default="auto",
        description="Where settings that are left out come from. auto: what suits the generator and the VLM. "
        "paper: the runs of the method's paper, without what was added to them since.",
    )
    generator: GeneratorSpec = Field(default=GeneratorSpec(), description="The generator that learns.")
    vlm: VlmSpec = Field(default=VlmSpec(), description="The frozen VLM that judges the pictures.")
    prompts: PromptsSpec = Field(description="What the generator is asked to draw.")
    visual_prompts: dict[Name, VisualPromptSpec] = Field(
        default={},
        description="Named pictures that are laid over the generated image before the VLM sees it.",
    )
    questions: tuple[Question, ...] = Field(
        min_length=1, description="What the VLM is asked about the pictures."
    )
    question_suffix: Text | None = Field(
        default=None,
        description="What every wording of every question ends with, such as Answer with Yes or No.",
    )
    learn: LearnSpec = Field(default=LearnSpec(), description="How the adapter is learned.")
    evaluate: EvaluateSpec = Field(default=EvaluateSpec(), description="How success is measured.")
    memory: Memory = Field(
        default="auto",
        description="Memory strategies: auto adds one after another until the run fits into its device's "
        "memory, exact ones first; a list names those to use.",
    )

    @property
    def where(self) -> tuple[Where, ...]:
        """What the answers' gradient moves: ``learn.where``, with auto decided by the questions."""
        if self.learn.where != "auto":
            return self.learn.where
        learned = [question for question in self.questions if question.weight > 0]
        # The noise decides about the layout; what is in the picture is also in what the prompt says of it.
        if all(question.visual_prompt is None for question in learned):
            return ("noise", "conditioning")
        # Colours that the generator has never drawn are in no noise: for these the weights have to move, and
        # alone, as noise that looks for them strays. What else is asked is found by the noise first.
        shown = [self.visual_prompts.get(name) for question in learned if (name := question.visual_prompt)]
        palettes = [isinstance(prompt, PalettePrompt) for prompt in shown]
        if all(palettes):
            return ("weights",)
        return ("noise", "weights") if any(palettes) else ("noise",)

    @property
    def variety(self) -> tuple[str, ...]:
        """Those of `further_prompts` that the weights are moved on; none unless the answers move them."""
        return self.further_prompts if "weights" in self.where and self.learn.variety else ()

    @property
    def further_prompts(self) -> tuple[str, ...]:
        """The prompts of ``prompts.variety`` that can be learned on: not held out, and fit for the questions.

        A question that names a lamp cannot be asked about a prompt without one, if all of ``train`` have one.
        """
        held_out = {same_text(prompt) for prompt in self.prompts.held_out}
        asked = _words(" ".join(text for question in self.questions for text in question.trained_wordings))
        needed = set.intersection(asked, *(_words(prompt) for prompt in self.prompts.train))
        return tuple(
            prompt
            for prompt in self.prompts.variety
            if same_text(prompt) not in held_out and needed <= _words(prompt)
        )

    def asking_only(self, questions: tuple[Question, ...]) -> "ControlSpec":
        """Return a spec that asks ``questions`` and nothing else, not even whether the picture is clean."""
        keep = self.learn.keep.model_copy(update={"clean": 0.0})
        learn = self.learn.model_copy(update={"keep": keep})
        return self.model_copy(update={"questions": questions, "learn": learn})

    @property
    def steered(self) -> tuple[Where, ...]:
        """What of `where` is not the weights: it is steered, and then taught to an adapter."""
        return tuple(one for one in self.where if one in STEERED)

    @property
    def asked(self) -> tuple[Question, ...]:
        """Everything that the VLM is asked, word by word: the questions, and whether the picture is clean."""
        weight, questions = self.learn.keep.clean, self.questions
        if self.question_suffix is not None:
            questions = tuple(question.ending_in(self.question_suffix) for question in questions)
        if not weight or any(question.name == CLEAN.name for question in questions):
            return questions
        return (*questions, CLEAN.model_copy(update={"weight": weight}))

    @property
    def question_texts(self) -> tuple[str, ...]:
        """Every text that a VLM may be given: the wordings and answers of all questions."""
        return tuple(text for question in self.asked for text in question.texts)
