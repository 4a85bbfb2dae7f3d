"""Collecting what is left of the VLM's answers under every probe, for a `Comparison`."""

from collections import defaultdict

from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.evaluation.ask import ask, lowest
from dualproc_cli.evaluation.comparison import ProbeReport
from dualproc_cli.evaluation.perturb import lossy, perturbed
from dualproc_cli.evaluation.probes import BLANK, PERTURBED, OtherWordings, ask_about_blank, corrected
from dualproc_cli.evaluation.right_and_clean import answered, learned_questions
from dualproc_cli.evaluation.tally import Answers, Column, means
from dualproc_cli.spec import ControlSpec


class Probing:
    """Asks again about pictures, prompt by prompt.

    Attributes:
        blank: P(answer) of each question about a blank picture; empty before the first pictures.
        perturbed: the lowest P(answer) over the perturbations of each picture.
        steady: whether all expected answers stand, to the picture and under everything that decides.
    """

    def __init__(self, spec: ControlSpec, full: bool = False) -> None:
        """Prepare to collect.

        Args:
            spec: the spec that was learned.
            full: whether the VLM is also asked about pictures as sharing leaves them, see `perturb.lossy`.
        """
        self._learned, self._full = learned_questions(spec), full
        self._answers: dict[str, Answers] = defaultdict(Answers)
        self._stands: dict[str, dict[Column, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self.blank: dict[str, float] = {}
        self.perturbed = Answers()
        self.steady: dict[Column, list[Tensor]] = defaultdict(list)

    def add(
        self,
        column: Column,
        images: Tensor,
        plain: dict[str, Tensor],
        loss: CompositeLoss,
        others: OtherWordings | None = None,
    ) -> None:
        """Ask about pictures.

        Args:
            column: of what kind they are.
            images: [N, 3, H, W] in [0, 1].
            plain: P(answer) [N] of each question about them as they are.
            loss: the spec's questions, compiled for the VLM trained against.
            others: the questions in wordings that were never learned on.
        """
        if not self.blank:
            self.blank = ask_about_blank(loss, images)
        versions = {name: ask(loss, version) for name, version in perturbed(images).items()}
        shaken = lowest(list(versions.values()))
        self.perturbed.add(column, shaken)
        deciding = {
            PERTURBED: shaken,
            **(others.ask(images) if others else {}),
            BLANK: corrected(plain, self.blank),
        }
        if self._full:
            versions |= {name: ask(loss, version) for name, version in lossy(images).items()}
        steady = answered(plain, self._learned)
        for name, found in {**deciding, **versions}.items():
            stands = answered({**plain, **found}, self._learned)
            self._answers[name].add(column, found)
            self._stands[name][column].append(stands)
            if name in deciding:
                steady &= stands
        self.steady[column].append(steady)

    def reports(self) -> dict[str, ProbeReport]:
        """Return what was found, by probe."""
        return {
            name: ProbeReport(means(self._stands[name]), answers.figures())
            for name, answers in self._answers.items()
        }
