"""What a spec's questions ask of the miniature's pictures, and which of its measures can judge that.

This module imports no torch, because `dualproc check` needs it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dualproc_cli.miniature.world.language import OPEN_KINDS, SUBJECTS, WORDINGS, Wording
from dualproc_cli.spec import (
    BoxPrompt,
    ControlSpec,
    LinePrompt,
    PalettePrompt,
    PointsPrompt,
    Question,
    VisualPromptSpec,
)

# The kinds of question that a measure judges, by the first word of the kind.
KINDS = {
    "horizon": ("horizon", "horizon-above"),
    "palette": ("palette",),
    "line-weight": ("line-weight", "thicker"),
    "depth": ("closer",),
    "composition": ("inside", "on-line", "left"),
    "attributes": ("attribute",),
    "look": ("night", "winter", "sea", "time", "season"),
    "content": ("exists", "two", "front", "what", "count"),
}
# The answers to open kinds that can be judged.
OPEN_ANSWERS = {
    "time": {"day", "night"},
    "season": {"summer", "winter"},
    "count": {"one", "two"},
    "what": {f"a {one}" for one in SUBJECTS}
    | {f"a {one} and a {other}" for one in SUBJECTS for other in SUBJECTS if one != other},
}
_ASKED = {wording.text.lower(): wording for wording in WORDINGS}


@dataclass(frozen=True)
class Goal:
    """What a question asks of the pictures.

    Attributes:
        question: a question of the spec.
        visual_prompt: the visual prompt that it is asked with, or None.
    """

    question: Question
    visual_prompt: VisualPromptSpec | None

    @property
    def wording(self) -> Wording | None:
        """The question as one of the miniature's wordings, None for any other question."""
        return _ASKED.get(" ".join(self.question.question.lower().split()))

    @property
    def kind(self) -> str:
        """The first word of the question's kind; empty if the question is not one of the miniature's."""
        return self.wording.kind.split()[0] if self.wording else ""

    @property
    def answer(self) -> str:
        """The expected answer in lower case, without a full stop."""
        return self.question.answer.strip(" .!").lower()

    @property
    def wanted(self) -> bool | None:
        """Whether the kind should be true: by Yes to it or No to its opposite. None for any other answer.

        An open kind is true where its answer is the expected one.
        """
        if self.kind in OPEN_KINDS:
            return True if self.answer in OPEN_ANSWERS[self.kind] else None
        if self.wording is None or self.answer not in ("yes", "no"):
            return None
        return (self.answer == "yes") == (self.wording.sign > 0)

    @property
    def can_be_judged(self) -> bool:
        """Whether its answer can be judged, and its kind is one that suits its visual prompt."""
        return self.wanted is not None and self.kind in _SUITS and _SUITS[self.kind](self.visual_prompt)


def goals_of(measure: str, spec: ControlSpec) -> list[Goal]:
    """Return the goals of ``spec`` that the measure can judge."""
    goals = [
        Goal(question, spec.visual_prompts.get(question.visual_prompt or "")) for question in spec.questions
    ]
    return [goal for goal in goals if goal.kind in KINDS[measure] and goal.can_be_judged]


def other_wordings(question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the wordings that ask the same as a question but that it does not name, and its opposites.

    Both are empty for a question that is not one of the miniature's; opposites are known for Yes and No.
    """
    goal = Goal(question, None)
    if goal.wording is None or goal.wanted is None:
        return (), ()
    kind, sign = goal.wording.kind, goal.wording.sign
    named = {" ".join(text.lower().split()) for text in question.trained_wordings}
    known = [one for one in WORDINGS if one.kind == kind and one.text.lower() not in named]
    same, opposite = (tuple(one.text for one in known if one.sign == each) for each in (sign, -sign))
    return same, () if kind in OPEN_KINDS else opposite


def clean_questions(spec: ControlSpec) -> tuple[str, ...]:
    """Return the names of the questions whether the picture is clean, which are judged without a goal."""
    return tuple(found.name for found in spec.questions if Goal(found, None).kind == "clean")


def example_of(measure: str) -> str:
    """Return a wording of a question that the measure can judge."""
    return next(wording.text for wording in WORDINGS if wording.kind.split()[0] in KINDS[measure])


def _line(orientation: str) -> Callable[[VisualPromptSpec | None], bool]:
    return lambda prompt: isinstance(prompt, LinePrompt) and prompt.orientation == orientation


def _is_line(prompt: VisualPromptSpec | None) -> bool:
    return isinstance(prompt, LinePrompt)


def _any(prompt: VisualPromptSpec | None) -> bool:
    return True


def _shows_a_and_b(prompt: VisualPromptSpec | None) -> bool:
    labels = {point.label.lower() for point in prompt.points} if isinstance(prompt, PointsPrompt) else set()
    return {"a", "b"} <= labels


# Whether a kind of question can be about a visual prompt.
_SUITS: dict[str, Callable[[VisualPromptSpec | None], bool]] = {
    "horizon": _line("horizontal"),
    "horizon-above": _line("horizontal"),
    "line-weight": _is_line,
    "thicker": _is_line,
    "palette": lambda prompt: isinstance(prompt, PalettePrompt),
    "closer": _shows_a_and_b,
    "inside": lambda prompt: isinstance(prompt, BoxPrompt),
    "on-line": _line("vertical"),
    "left": _line("vertical"),
    **dict.fromkeys((*KINDS["attributes"], *KINDS["look"], *KINDS["content"]), _any),
}
