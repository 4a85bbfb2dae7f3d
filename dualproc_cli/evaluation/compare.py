"""Comparing the pictures of base generator and learned control from the same held-out seeds."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.evaluation.album import Album
from dualproc_cli.evaluation.ask import ask
from dualproc_cli.evaluation.comparison import Comparison, Figures
from dualproc_cli.evaluation.drawn import Drawn, draw_both
from dualproc_cli.evaluation.probes import OtherWordings
from dualproc_cli.evaluation.probing import Probing
from dualproc_cli.evaluation.right_and_clean import (
    Pictures,
    Shares,
    answered,
    both,
    learned_questions,
    right_by_measures,
    unjudged_questions,
)
from dualproc_cli.evaluation.strengths import Strengths
from dualproc_cli.evaluation.tally import HELD_OUT, TRAINED, Answers, Column, Tally, means
from dualproc_cli.generator import Generator
from dualproc_cli.measures import (
    Judgement,
    Measure,
    automatic_measures,
    clean_measures,
    judge_in_turn,
)
from dualproc_cli.measures.clean import CleanRange, two_sided
from dualproc_cli.spec import ControlSpec


def compare_with_base(
    spec: ControlSpec,
    generator: Generator,
    loss: CompositeLoss,
    measures: Sequence[Measure],
    second: CompositeLoss | None = None,
    *,
    seeds: Sequence[int],
    others: OtherWordings | None = None,
    album: Album | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Draw every prompt with the base generator and with the control, ask the VLMs, and measure.

    `evaluate_bundle` does the same with one model in memory at a time.

    Args:
        spec: the spec that was learned.
        generator: with the learned adapter.
        loss: the spec's questions, compiled for the VLM trained against.
        measures: judge the pictures; they must not refuse ``spec``.
        second: the same questions, compiled for another VLM.
        seeds: at least 2, that every prompt is drawn at; none that were learned on.
        others: the questions in wordings that were never learned on.
        album: where some of the pictures are kept.
        progress: called with the number of pictures drawn and their total.
    """
    trial = Trial(spec, measures, draw_both(spec, generator, seeds, progress, album=album))
    trial.ask(loss, generator.device, others)
    if second is not None:
        trial.ask_second(second, generator.device)
    trial.measure(generator.device)
    return trial.result(len(seeds))


class Trial:
    """Collects what VLMs and measures find in pictures; each of them judges all pictures in one go.

    Usage::

        trial = Trial(spec, measures, drawn)
        trial.ask(loss, device)
        trial.ask_second(second, device)      # if there is a second VLM
        trial.measure(device)
        found = trial.result(seeds)
    """

    def __init__(
        self,
        spec: ControlSpec,
        measures: Sequence[Measure],
        drawn: Sequence[Drawn],
        full: bool = False,
        strengths: Mapping[float, Sequence[Drawn]] = MappingProxyType({}),
    ) -> None:
        """Prepare to judge pictures.

        Args:
            spec: the spec that was learned.
            measures: must not refuse it.
            drawn: the base generator's pictures and the control's.
            full: whether more is asked of the VLM that was trained against (`Probing`).
            strengths: what the control draws at other strengths.
        """
        self._spec, self._measures, self._drawn = spec, measures, drawn
        self._strengths = Strengths(strengths)
        self._clean = clean_measures(spec)
        self._unjudged = unjudged_questions(spec, measures)
        self._answers, self._second_answers = Answers(), Answers()
        self._answered: dict[Column, list[Tensor]] = defaultdict(list)
        self._probing = Probing(spec, full)
        # What was found in each part of ``drawn``: the second VLM's verdict, and every measure's.
        self._second: list[Tensor | None] = [None] * len(drawn)
        self._found: list[dict[Measure, Judgement]] = []
        self._found_at_strengths: list[dict[Measure, Judgement]] = []

    def ask(self, loss: CompositeLoss, device: torch.device, others: OtherWordings | None = None) -> None:
        """Ask the VLM that was trained against, on ``device``, and again under every probe (`Probing`)."""
        learned = learned_questions(self._spec)
        for part in self._drawn:
            images = part.images.to(device)
            plain = ask(loss, images)
            self._answers.add(part.column, plain)
            self._answered[part.column].append(answered(plain, learned))
            self._probing.add(part.column, images, plain, loss, others)
        self._strengths.ask(loss, device, self._unjudged)

    def ask_second(self, loss: CompositeLoss, device: torch.device) -> None:
        """Ask a VLM that was not trained against; it judges the questions that no measure does."""
        for index, part in enumerate(self._drawn):
            found = ask(loss, part.images.to(device))
            self._second_answers.add(part.column, found)
            if self._unjudged:
                self._second[index] = answered(found, self._unjudged)

    def measure(self, device: torch.device) -> None:
        """Let every measure judge all pictures; those that judge by a model load it on ``device`` in turn."""
        # Evidence is made anew for every model: it takes four times the memory of what it is made of.
        parts = [*self._drawn, *self._strengths.parts]
        found = judge_in_turn(
            [*self._measures, *self._clean], lambda: (part.evidence(self._spec) for part in parts), device
        )
        self._found, self._found_at_strengths = found[: len(self._drawn)], found[len(self._drawn) :]

    def result(self, seeds: int) -> Comparison:
        """Return everything that was found at ``seeds`` seeds per prompt."""
        judges, pictures = self._judged()
        shares: dict[Column, Shares] = {}
        for own, learned in (TRAINED, HELD_OUT):
            if own in pictures:
                clean_range = CleanRange.of(torch.cat(pictures[own].statistics), two_sided(self._clean))
                shares |= {column: pictures[column].shares(clean_range) for column in (own, learned)}
        found = {
            name: Figures(**{column: getattr(share, name) for column, share in shares.items()})
            for name in ("right", "clean", "right_and_clean")
        }
        result = Comparison(
            seeds=seeds,
            right=found["right"] if judges else None,
            clean=found["clean"],
            right_and_clean=found["right_and_clean"] if judges else None,
            right_by=judges,
            clean_by=tuple(measure.name for measure in self._clean),
            unjudged=() if self._second_answers else self._unjudged,
            automatic=automatic_measures(self._spec),
            answered=means(self._answered),
            steady=means(self._probing.steady),
            questions=self._answers.figures(),
            perturbed=self._probing.perturbed.figures(),
            second_vlm=self._second_answers.figures(),
            probes=self._probing.reports(),
            blank=self._probing.blank,
            strengths=self._strengths.result(self._found_at_strengths, self._measures, self._clean),
        )
        fixed = {name for measure in self._measures for name in measure.fixes}
        for measure in self._measures:
            tally = Tally(measure)
            for part, judged in zip(self._drawn, self._found, strict=True):
                tally.add(part.column, judged[measure])
            tally.report(result, fixed)
        return result

    def _judged(self) -> tuple[tuple[str, ...], dict[Column, Pictures]]:
        """Return who says what is right, and what is right and how clean it is, by kind of pictures."""
        judges: tuple[str, ...] = ()
        pictures: dict[Column, Pictures] = defaultdict(Pictures)
        for part, judged, second in zip(self._drawn, self._found, self._second, strict=True):
            right = right_by_measures([judged[measure] for measure in self._measures])
            sayings = (("measures", right), ("second VLM", second))
            judges = tuple(name for name, said in sayings if said is not None)
            found = pictures[part.column]
            found.right.append(both(right, second))
            found.statistics.append(torch.stack([judged[measure].value for measure in self._clean], 1))
        return judges, pictures
