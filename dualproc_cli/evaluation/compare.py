"""Comparing the pictures of base generator and learned control from the same held-out seeds."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import draw_pictures, held_out_seeds
from dualproc_cli.evaluation.comparison import Comparison
from dualproc_cli.evaluation.tally import Answers, Column, Tally
from dualproc_cli.generator import Generator
from dualproc_cli.measures import Evidence, Measure
from dualproc_cli.spec import ControlSpec

BATCH = 16  # pictures drawn or asked about at once


def compare_with_base(
    spec: ControlSpec,
    generator: Generator,
    loss: CompositeLoss,
    measures: Sequence[Measure],
    second: CompositeLoss | None = None,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Draw every prompt with the base generator and with the control, ask the VLMs, and measure.

    Args:
        spec: the spec that was learned.
        generator: with the learned adapter.
        loss: the spec's questions, compiled for the VLM trained against.
        measures: judge the pictures; they must not refuse ``spec``.
        second: the same questions, compiled for another VLM.
        seeds: per prompt, at least 2; None takes the spec's.
        progress: called with the number of pictures done and their total.
    """
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    groups: list[tuple[tuple[str, ...], tuple[Column, Column]]] = [
        (spec.prompts.train, ("base", "learned")),
        (spec.prompts.held_out, ("base_held_out", "learned_held_out")),
    ]
    total = 2 * len(numbers) * sum(len(prompts) for prompts, _ in groups)
    answers, second_answers, done = Answers(), Answers(), 0
    tallies = [Tally(measure) for measure in measures]
    for prompts, columns in groups:
        for prompt in prompts:
            base: Tensor | None = None
            for column in columns:
                with generator.without_adapter() if base is None else nullcontext():
                    drawn = draw_pictures(generator, prompt, numbers, BATCH)
                    images = torch.stack(list(drawn))
                answers.add(column, ask(loss, images))
                if second is not None:
                    second_answers.add(column, ask(second, images))
                pictures = images.float().cpu()
                base = pictures if base is None else base
                evidence = Evidence(pictures, spec, base, [prompt] * len(pictures))
                for tally in tallies:
                    tally.add(column, tally.measure.judge(evidence))
                done += len(images)
                progress(done, total)
    result = Comparison(len(numbers), answers.figures(), second_answers.figures())
    for tally in tallies:
        tally.report(result)
    return result


@torch.no_grad()
def ask(loss: CompositeLoss, images: Tensor) -> dict[str, Tensor]:
    """Return P(answer) [N] of every question about images [N, 3, H, W], by name."""
    parts = [loss(part).probabilities for part in images.split(BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
