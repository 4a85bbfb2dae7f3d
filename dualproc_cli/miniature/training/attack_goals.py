"""What attacks make the VLM say: Yes to a question about a visual prompt, or an open answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.miniature.training.packing import QUESTIONS
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.language import WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import margins
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    LOOKS,
    NOBODY,
    SUBJECTS,
    sample_prompts,
    sample_scenes,
    with_random_colors,
)

# First words of the kinds of question that are attacked; repeated ones are attacked more often.
ATTACKED_KINDS = (
    "horizon", "horizon", "palette", "palette", "line-weight", "line-weight", "closer", "closer", "inside",
    "inside", "on-line", "attribute", "night", "winter", "sea", "two", "time", "season", "count",
)  # fmt: skip
WITHOUT_PROMPT = ("attribute", "night", "winter", "sea", "two", "time", "season", "count", "clean")
OPEN_ANSWERS = {"time": ("night", "day"), "season": ("winter", "summer"), "count": ("two", "one")}
FACTS = {"time": "night", "season": "winter", "count": "two"}  # what an open question is about
MORE = 16  # prompts that are sampled for each that must not state the answer
RANDOM_COLORS = 0.5  # share of the scenes, and so of the palettes, whose colours are no family's


@dataclass(frozen=True)
class AttackGoal:
    """What an attack makes the VLM say.

    Attributes:
        overlays: one visual prompt, repeated for each picture of a step.
        answers: QUESTIONS pairs of a wording, as index into WORDINGS, and the answer to it. In half of the
            goals one of them says that the picture is clean; the first is repeated to fill up.
        subject: index into SUBJECTS of the subject that the question is about, NOBODY without one.
    """

    overlays: Overlays
    answers: tuple[tuple[int, str], ...]
    subject: int

    def __str__(self) -> str:
        """Return the questions and their answers."""
        return ", ".join(f"{WORDINGS[index].text} {answer}" for index, answer in dict.fromkeys(self.answers))

    @property
    def is_about_visual_prompt(self) -> bool:
        """Whether a question is about the visual prompt."""
        return any(WORDINGS[index].kind.split()[0] not in WITHOUT_PROMPT for index, _ in self.answers)

    def sample_prompts(self, count: int, rng: torch.Generator) -> list[str]:
        """Sample ``count`` prompts whose nearer subject is the goal's, or any.

        None states the answer already: a night is wanted of days.
        """
        kind, look = sample_prompts(MORE * count, rng)
        if self.subject != NOBODY:
            kind[:, 0] = self.subject
            kind[:, 1] = torch.where(kind[:, 1] == self.subject, NOBODY, kind[:, 1])
        rows = (~self._is_stated(kind, look)).nonzero()[:, 0]
        rows = rows[torch.randint(len(rows), (count,), generator=rng)]
        return captions(kind[rows], look[rows], rng)

    def _is_stated(self, kind: Tensor, look: Tensor) -> Tensor:
        """Return whether prompts of subjects ``kind`` [N, 2] and ``look`` [N] say that the answer is true."""
        index, answer = self.answers[0]
        wording = WORDINGS[index]
        fact = FACTS.get(wording.kind, wording.kind)
        if fact not in ("two", *LOOKS):
            return torch.zeros(len(look), dtype=torch.bool)
        is_wanted = answer == fact if wording.kind in FACTS else wording.sign > 0
        is_true = (kind != NOBODY).all(1) if fact == "two" else look == LOOKS.index(fact)
        return is_true == is_wanted


def sample_goal(batch: int, rng: torch.Generator, kinds: Sequence[str] = ATTACKED_KINDS) -> AttackGoal:
    """Sample a visual prompt over some scene, and a question about it of one of ``kinds``."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=rng))

    def wording_of(kind: str) -> int:
        asking = [index for index, wording in enumerate(WORDINGS) if wording.kind == kind]
        return asking[draw(len(asking))]

    about = kinds[draw(len(kinds))]
    scene = with_random_colors(sample_scenes(64, rng), RANDOM_COLORS, rng)
    rendering = render(scene)
    overlays = sample_overlays(scene, rendering, rng)
    kind, row, answer = about, draw(len(scene)), "yes"
    if about in OPEN_ANSWERS:
        answer = OPEN_ANSWERS[about][draw(2)]
    else:
        found = margins(scene, rendering, overlays)
        asking = [kind for kind in YES_NO_KINDS if kind.split()[0] == about]
        askable = [(kind, at) for kind in asking for at in found[kind].weight.nonzero()[:, 0].tolist()]
        kind, row = askable[draw(len(askable))]
    answers = [(wording_of(kind), answer)]
    if draw(2):
        is_clean = wording_of("clean")
        answers.append((is_clean, "yes" if WORDINGS[is_clean].sign > 0 else "no"))
    answers = [answers[0]] * (QUESTIONS - len(answers)) + answers
    subject = SUBJECTS.index(kind.split()[1]) if " " in kind else NOBODY
    return AttackGoal(overlays[torch.full((batch,), row)], tuple(answers), subject)
