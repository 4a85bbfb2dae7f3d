"""What every measure has in common: what it is given, what it returns, and what reports say about it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.spec import ControlSpec

if TYPE_CHECKING:  # a spec is checked without torch
    from torch import Tensor

    from dualproc_cli.measures.pretrained import Loaded, Pretrained

Role = Literal["goal", "artefact", "variety"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Evidence:
    """N pictures of one size, and what is known of them.

    Attributes:
        images: [N, 3, H, W] in [0, 1], float32, on the CPU.
        spec: whose questions and visual prompts the pictures are judged by.
        base: the base generator's pictures of the same prompts and seeds, as ``images``; None for pictures of
            unknown origin.
        prompts: N prompts; None where they are unknown.
    """

    images: "Tensor"
    spec: ControlSpec
    base: "Tensor | None" = None
    prompts: Sequence[str] | None = None
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    def shared(self, function: "Callable[[Tensor], T]") -> T:
        """Return ``function(images)``, computed once for all measures that ask for it."""
        if function not in self._results:
            self._results[function] = function(self.images)
        return self._results[function]

    @property
    def unjudged(self) -> "Tensor":
        """NaN for each picture [N], the value of pictures that cannot be judged."""
        return self.images.new_full((len(self.images),), float("nan"))


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a measure found in N pictures.

    Attributes:
        value: [N], or [N, D] for a property whose variety is measured; NaN where a picture was not judged.
        success: [N] of 1 and 0, NaN where a picture was not judged; None where no goal is set.
    """

    value: "Tensor"
    success: "Tensor | None" = None


class Measure(ABC):
    """Judges pictures, independently of the VLM that was trained against.

    `dualproc check` calls `refuses` without torch, so a measure's module imports torch in `judge` only.

    Attributes:
        name: in reports.
        unit: of the value.
        role: how it is reported: a ``goal`` by its success rate and mean value; an ``artefact`` by its mean
            value and its ratio to the base generator's; a ``variety`` by the spread of its value over the
            seeds of a prompt and its ratio to the base generator's.
        fixes: names of the properties that a goal may fix for every seed, so that losing their variety is no
            collapse.
        model: the model that it judges by; None if it needs no model.
        revision: of the model.
        licence: of the model.
        needs: the model that `judge_in_turn` loads for it; None if it needs none, or loads its own.
    """

    name: str
    unit: str = ""
    role: Role = "goal"
    fixes: tuple[str, ...] = ()
    model: str | None = None
    revision: str | None = None
    licence: str | None = None
    needs: "Pretrained | None" = None
    _loaded: "Loaded | None" = None

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Return why the pictures of ``spec`` cannot be judged; None if they can.

        The model that the measure needs is looked at by its configuration alone.
        """
        return self.needs.refusal() if self.needs else None

    def take(self, loaded: "Loaded | None") -> None:
        """Take the model that it needs, or give it back (None)."""
        self._loaded = loaded
        if loaded is not None:
            self.model, self.revision, self.licence = loaded.name, loaded.revision, loaded.licence

    @property
    def loaded(self) -> "Loaded":
        """The model that it needs, while `judge_in_turn` has it in memory."""
        if self._loaded is None:
            raise RuntimeError(f"{self.name}: its model is not in memory; judge_in_turn loads it")
        return self._loaded

    def judged_questions(self, spec: ControlSpec) -> tuple[str, ...]:
        """Return the names of the questions of ``spec`` whose answers the measure checks."""
        return ()

    @abstractmethod
    def judge(self, evidence: Evidence) -> Judgement:
        """Judge pictures; those without the base picture, prompt or size that it needs get NaN."""


def spread(values: "Tensor") -> float:
    """Return the root mean variance over N of a property [N, D]; 0 if all N are equal, NaN if N is 1."""
    return float((values - values[0]).var(0).mean().sqrt())
