"""Measures of what a visual prompt of the spec shows: a palette, a line, a box, points."""

from typing import Generic, TypeVar, get_args

from dualproc_cli.measures.measure import Measure
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.spec import ControlSpec, VisualPromptSpec
from dualproc_cli.spec.faults import did_you_mean, shown

P = TypeVar("P")


class TargetMeasure(Measure, Generic[P]):
    """Compares pictures with a visual prompt of one type.

    Attributes:
        wanted: the class of this visual prompt.
        target: its name in the spec.
        key: the parameter that names it.
    """

    wanted: type[P]
    target: str
    key: str = "target"

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse a target that is missing or of another type."""
        return self._refuses_target(spec) or super().refuses(spec)

    def _refuses_target(self, spec: ControlSpec) -> Refusal | None:
        prompt = spec.visual_prompts.get(self.target)
        if isinstance(prompt, self.wanted):
            return None
        (kind,) = get_args(self.wanted.model_fields["type"].annotation)  # type: ignore[attr-defined]
        of_it = [name for name, found in spec.visual_prompts.items() if isinstance(found, self.wanted)]
        expected = f"a visual prompt of type {kind}" + (f": {', '.join(of_it)}" if of_it else "")
        if prompt is None:
            near = did_you_mean(self.target, list(spec.visual_prompts))
            return Refusal(f"no visual prompt {shown(self.target)}{near}", expected, self.key)
        return Refusal(f"{shown(self.target)} is of type {prompt.type}", expected, self.key)

    def judged_questions(self, spec: ControlSpec) -> tuple[str, ...]:
        """Return the questions about the target that are answered by Yes."""
        about = (question for question in spec.questions if question.visual_prompt == self.target)
        return tuple(question.name for question in about if question.answer.strip(" .!").lower() == "yes")

    def prompt_of(self, spec: ControlSpec) -> P:
        """Return the target; `refuses` has found it."""
        prompt: VisualPromptSpec | None = spec.visual_prompts.get(self.target)
        if not isinstance(prompt, self.wanted):
            raise TypeError(f"{self.name}: the spec was not checked: no target {self.target}")
        return prompt
