"""Comparing the pictures of base generator and learned control from the same held-out seeds."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import draw_pictures
from dualproc_cli.evaluation.album import Album
from dualproc_cli.evaluation.ask import BATCH, ask
from dualproc_cli.evaluation.comparison import Comparison, Figures
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
from dualproc_cli.evaluation.tally import HELD_OUT, TRAINED, Answers, Column, Tally, means
from dualproc_cli.generator import Generator
from dualproc_cli.measures import Evidence, Measure, automatic_measures, clean_measures
from dualproc_cli.measures.clean import CleanRange, statistics, two_sided
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
    full: bool = False,
    album: Album | None = None,
    drawn: dict[str, Tensor] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Draw every prompt with the base generator and with the control, ask the VLMs, and measure.

    Args:
        spec: the spec that was learned.
        generator: with the learned adapter.
        loss: the spec's questions, compiled for the VLM trained against.
        measures: judge the pictures; they must not refuse ``spec``.
        second: the same questions, compiled for another VLM.
        seeds: at least 2, that every prompt is drawn at; none that were learned on.
        others: the questions in wordings that were never learned on.
        full: whether the VLM is also asked about pictures as sharing leaves them, see `perturb.lossy`.
        album: where some of the pictures are kept.
        drawn: pictures of the base generator, of these seeds, by prompt; those that are drawn are added.
        progress: called with the number of pictures done and their total.
    """
    trial = Trial(spec, loss, measures, second, others, full)
    groups = ((spec.prompts.train, TRAINED), (spec.prompts.held_out, HELD_OUT))
    total, done = 2 * len(seeds) * len(spec.prompts.all), 0

    def draw(prompt: str) -> Tensor:
        return torch.stack(list(draw_pictures(generator, prompt, seeds, BATCH)))

    for prompts, (own, learned) in groups:
        for prompt in prompts:
            base = drawn.get(prompt) if drawn else None
            if base is None:
                with generator.without_adapter():
                    base = draw(prompt).float().cpu()
                if drawn is not None:
                    drawn[prompt] = base
            trial.add(own, prompt, base.to(generator.device), base)
            progress(done := done + len(seeds), total)
            images = draw(prompt)
            trial.add(learned, prompt, images, base)
            progress(done := done + len(seeds), total)
            if album:
                album.add(prompt, prompts is spec.prompts.held_out, base, images)
    return trial.result(len(seeds))


class Trial:
    """Collects what VLMs and measures find in the pictures, prompt by prompt."""

    def __init__(
        self,
        spec: ControlSpec,
        loss: CompositeLoss,
        measures: Sequence[Measure],
        second: CompositeLoss | None,
        others: OtherWordings | None = None,
        full: bool = False,
    ) -> None:
        self._spec, self._loss, self._second = spec, loss, second
        self._tallies = [Tally(measure) for measure in measures]
        self._clean = clean_measures(spec)
        self._answers, self._second_answers = Answers(), Answers()
        self._probing = Probing(spec, loss, others, full)
        self._pictures: dict[Column, Pictures] = defaultdict(Pictures)
        self._answered: dict[Column, list[Tensor]] = defaultdict(list)
        self._unjudged = unjudged_questions(spec, measures)
        self._judges: tuple[str, ...] = ()

    def add(self, column: Column, prompt: str, images: Tensor, base: Tensor) -> None:
        """Ask about and measure the pictures of one prompt.

        Args:
            column: which generator and which prompts they are of.
            prompt: what they were drawn from.
            images: [N, 3, H, W] in [0, 1], on the generator's device.
            base: the base generator's pictures of the same seeds, on the CPU.
        """
        plain = ask(self._loss, images)
        self._answers.add(column, plain)
        self._answered[column].append(answered(plain, learned_questions(self._spec)))
        self._probing.add(column, images, plain)
        evidence = Evidence(images.float().cpu(), self._spec, base, [prompt] * len(images))
        judgements = [tally.measure.judge(evidence) for tally in self._tallies]
        for tally, judgement in zip(self._tallies, judgements, strict=True):
            tally.add(column, judgement)
        second = None
        if self._second is not None:
            probabilities = ask(self._second, images)
            self._second_answers.add(column, probabilities)
            second = answered(probabilities, self._unjudged) if self._unjudged else None
        right = right_by_measures(judgements)
        self._judges = tuple(
            name for name, said in (("measures", right), ("second VLM", second)) if said is not None
        )
        self._pictures[column].right.append(both(right, second))
        self._pictures[column].statistics.append(statistics(self._clean, evidence))

    def result(self, seeds: int) -> Comparison:
        """Return everything that was found."""
        shares: dict[Column, Shares] = {}
        for own, learned in (TRAINED, HELD_OUT):
            if own in self._pictures:
                values = torch.cat(self._pictures[own].statistics)
                clean_range = CleanRange.of(values, two_sided(self._clean))
                shares |= {column: self._pictures[column].shares(clean_range) for column in (own, learned)}
        found = {
            name: Figures(**{column: getattr(share, name) for column, share in shares.items()})
            for name in ("right", "clean", "right_and_clean")
        }
        result = Comparison(
            seeds=seeds,
            right=found["right"] if self._judges else None,
            clean=found["clean"],
            right_and_clean=found["right_and_clean"] if self._judges else None,
            right_by=self._judges,
            clean_by=tuple(measure.name for measure in self._clean),
            unjudged=() if self._second else self._unjudged,
            automatic=automatic_measures(self._spec),
            answered=means(self._answered),
            steady=means(self._probing.steady),
            questions=self._answers.figures(),
            perturbed=self._probing.perturbed.figures(),
            second_vlm=self._second_answers.figures(),
            probes=self._probing.reports(),
            blank=self._probing.blank,
        )
        fixed = {name for tally in self._tallies for name in tally.measure.fixes}
        for tally in self._tallies:
            tally.report(result, fixed)
        return result
