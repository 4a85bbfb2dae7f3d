"""The measures of the miniature's world, which judge by the pixels whether a control was learned.

All of them use one `Reading` of the pictures: the scenes that a small network reads off them, refined until
their renders fit. The spec's questions set the goals. Artefacts (what no scene of the world has) and
varieties (what changes from seed to seed) are measured along with them.
"""

from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement, Measure, Role
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.miniature import reader_folder, revision
from dualproc_cli.miniature.world import SIZE
from dualproc_cli.miniature.world.goals import KINDS, clean_questions, example_of, goals_of
from dualproc_cli.spec import ControlSpec
from dualproc_cli.spec.faults import shown
from dualproc_cli.spec.models import MINIATURE

if TYPE_CHECKING:
    from torch import Tensor

    from dualproc_cli.miniature.world.reader import Reader, Reading

ARTEFACTS = ("residual", "texture")
VARIETIES = ("horizon", "sky", "ground", "subject-color", "line-weight", "place", "size", "attribute")
# Units of the goals' values, which say how far inside its tolerance a picture is.
UNITS = {
    "horizon": "rows inside",
    "palette": "CIEDE2000 inside",
    "line-weight": "pixels inside",
    "depth": "rows inside",
    "composition": "pixels inside",
}
# The varieties that a goal may fix for every seed.
FIXES = {
    "horizon": ("horizon",),
    "palette": ("sky", "ground", "subject-color"),
    "line-weight": ("line-weight",),
    "depth": ("place", "size"),
    "composition": ("place", "size"),
    "attributes": ("attribute",),
    "look": ("sky", "ground"),
}


def measure_named(name: str) -> Measure:
    """Return the measure that a spec calls ``name``."""
    return Subject() if name == "subject" else Goals(name)


def suitable(spec: ControlSpec) -> tuple[str, ...]:
    """Return the names of the measures that can judge questions of ``spec``, with `Subject` if any can."""
    names = [name for name in KINDS if Goals(name).refuses(spec) is None]
    return (*names, "subject") if names else ()


def companions() -> list[Measure]:
    """Return the artefacts and varieties, which are measured along with any of the miniature's measures."""
    return [*(Artefact(name) for name in ARTEFACTS), *(Variety(name) for name in VARIETIES)]


class WorldMeasure(Measure):
    """Judges the miniature's pictures, of 64x64 pixels, by the scenes that are read off them."""

    model = "the miniature's reader"
    licence = "Apache-2.0"

    def __init__(self, name: str, role: Role, unit: str = "") -> None:
        self.name, self.role, self.unit = name, role, unit
        self.revision = revision("reader")

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse pictures that are not the miniature's."""
        generator = spec.generator
        if generator.model != MINIATURE:
            return Refusal(
                f"{self.name} reads the miniature's pictures, not those of {shown(generator.model)}",
                "a measure of any picture, such as {type: distance, name: near-base, at_most: 0.1}",
            )
        if (generator.height, generator.width) != (SIZE, SIZE):
            return Refusal(
                f"{self.name} reads {SIZE}x{SIZE} pictures, not {generator.width}x{generator.height}",
                f"generator.width and generator.height of {SIZE}",
            )
        return None

    def judge(self, evidence: Evidence) -> Judgement:
        """Judge the scenes that are read off the pictures, once for all measures."""
        if evidence.images.shape[-2:] != (SIZE, SIZE):
            value = evidence.unjudged
            return Judgement(value, value if self.role == "goal" else None)
        return self.judge_reading(evidence.shared(read_pictures), evidence)

    @abstractmethod
    def judge_reading(self, reading: "Reading", evidence: Evidence) -> Judgement:
        """Judge pictures by what was read off them."""


class Goals(WorldMeasure):
    """Success means that every goal of the spec that the measure can judge is met.

    The value is the smallest slack of the goals: how far inside its tolerance a picture is. It is NaN if a
    goal is neither true nor false, which does not count as a success. A wanted palette must also be even.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, "goal", UNITS.get(name, ""))
        self.fixes = FIXES.get(name, ())

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse pictures that are not the miniature's, and specs without a question to judge."""
        refusal = super().refuses(spec)
        if refusal or goals_of(self.name, spec):
            return refusal
        return Refusal(
            f"{self.name} has no question that it can judge",
            f"one like {example_of(self.name)!r}, answered Yes or No, and the visual prompt it speaks of",
        )

    def judged_questions(self, spec: ControlSpec) -> tuple[str, ...]:
        """Return the questions whose answers can be judged."""
        return tuple(goal.question.name for goal in goals_of(self.name, spec))

    def judge_reading(self, reading: "Reading", evidence: Evidence) -> Judgement:
        """Judge every goal."""
        import torch

        from dualproc_cli.miniature.world import judging

        goals = goals_of(self.name, evidence.spec)
        met = [judging.meets(goal, reading.scene) for goal in goals]
        slacks = [judging.slack(goal, reading.scene) for goal in goals]
        value = [inside if goal.wanted else -inside for goal, inside in zip(goals, slacks, strict=True)]
        if self.name == "palette" and any(goal.wanted for goal in goals):
            value.append(judging.UNEVEN - judging.unevenness(reading.scene, evidence.images))
            met.append(value[-1] >= 0)
        return Judgement(torch.stack(value).amin(0), torch.stack(met).all(0).float())


class Subject(WorldMeasure):
    """Success means that the picture shows the subjects of its prompt, or others that the spec asks for."""

    def __init__(self) -> None:
        super().__init__("subject", "goal")

    def judge_reading(self, reading: "Reading", evidence: Evidence) -> Judgement:
        """Compare the subjects with the prompts; without prompts, pictures are unjudged."""
        from dualproc_cli.miniature.world.judging import shows_subjects

        if evidence.prompts is None:
            return Judgement(evidence.unjudged, evidence.unjudged)
        asked = goals_of("content", evidence.spec)
        shown = shows_subjects(reading.scene, evidence.prompts, asked).float()
        return Judgement(shown, shown)


class Artefact(WorldMeasure):
    """What no scene of the world has: ``residual`` or ``texture``."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "artefact")

    def judged_questions(self, spec: ControlSpec) -> tuple[str, ...]:
        """Return the questions whether the picture is clean, which the residual decides."""
        return clean_questions(spec) if self.name == "residual" else ()

    def judge_reading(self, reading: "Reading", evidence: Evidence) -> Judgement:
        """Compare the pictures with the renders of what was read off them."""
        from dualproc_cli.miniature.world import judging

        function = judging.residual if self.name == "residual" else judging.texture
        return Judgement(function(reading, evidence.images))


class Variety(WorldMeasure):
    """A property of the scene, one of `VARIETIES`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "variety")

    def judge_reading(self, reading: "Reading", evidence: Evidence) -> Judgement:
        """Return the property [N, D]."""
        from dualproc_cli.miniature.world.judging import PROPERTIES

        return Judgement(PROPERTIES[self.name](reading.scene))


def read_pictures(images: "Tensor") -> "Reading":
    """Read the scenes off images [N, 3, 64, 64] in [0, 1].

    Raises:
        UserError: the reader's weights are missing or damaged.
    """
    from dualproc_cli.miniature.world.reader import read

    return read(_reader(), images)


@cache
def _reader() -> "Reader":
    from dualproc_cli.miniature.world.reader import load_reader

    return load_reader(reader_folder())
