"""The base generator against the learned control, picture by picture from the same held-out seeds."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import held_out_seeds
from dualproc_cli.evaluation.judge import Judge
from dualproc_cli.generator import Generator
from dualproc_cli.miniature.world.measures import spread
from dualproc_cli.spec import LoadedSpec

BATCH = 16

# base, learned, base_held_out, learned_held_out; the last two are None without held-out prompts.
Figures = dict[str, float | None]


@dataclass
class Comparison:
    """What changed between the base generator and the learned control.

    Attributes:
        seeds: held-out seeds per prompt.
        questions: mean P(answer) by question.
        second_vlm: the same by a VLM that was not trained against; empty without one.
        measures: success rates of the independent measures, by name.
        spread: learned over base, of every measured property over the seeds of a prompt: 1 keeps all variety.
        artefacts: mean of what no scene of the world has, by name.
    """

    seeds: int
    questions: dict[str, Figures] = field(default_factory=dict)
    second_vlm: dict[str, Figures] = field(default_factory=dict)
    measures: dict[str, Figures] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    artefacts: dict[str, Figures] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A plain object of numbers, for machines."""
        return asdict(self)


def compare(
    loaded: LoadedSpec,
    generator: Generator,
    loss: CompositeLoss,
    judge: Judge | None,
    second: CompositeLoss | None = None,
    seeds: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Draw, ask and measure.

    Args:
        loaded: the spec that was learned.
        generator: with the learned adapter on.
        loss: the spec's questions, compiled for the VLM trained against.
        judge: the independent measures; None leaves them out.
        second: the same questions, compiled for another VLM.
        seeds: per prompt; None takes the spec's.
        progress: called with the pictures done and their total.
    """
    spec = loaded.spec
    numbers = held_out_seeds(seeds or spec.evaluate.seeds)
    groups = {"": spec.prompts.train, "_held_out": spec.prompts.held_out}
    total = 2 * len(numbers) * sum(len(prompts) for prompts in groups.values())
    result, done = Comparison(len(numbers)), 0
    properties: dict[str, list[dict[str, Tensor]]] = {"base": [], "learned": []}
    for suffix, prompts in groups.items():
        for side in ("base", "learned"):
            tally = _Tally()
            for prompt in prompts:
                with generator.without_adapter() if side == "base" else nullcontext():
                    images = draw_batches(generator, prompt, numbers)
                done += len(images)
                progress(done, total)
                tally.add("questions", ask(loss, images))
                if second is not None:
                    tally.add("second_vlm", ask(second, images))
                if judge is not None:
                    verdict = judge(images, prompt)
                    tally.add("measures", verdict.successes)
                    tally.add("artefacts", verdict.artefacts)
                    if not suffix:
                        properties[side].append(verdict.properties)
            tally.write(result, side + suffix)
    result.spread = _spread_ratios(properties["base"], properties["learned"])
    return result


@torch.no_grad()
def draw_batches(generator: Generator, prompt: str, seeds: Sequence[int]) -> Tensor:
    """Pictures [N, 3, H, W] of one prompt, one per seed."""
    parts = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    return torch.cat([generator.render([prompt] * len(part), part) for part in parts])


@torch.no_grad()
def ask(loss: CompositeLoss, images: Tensor) -> dict[str, Tensor]:
    """P(answer) [N] of every question about images [N, 3, H, W], by name."""
    parts = [loss(part).probabilities for part in images.split(BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class _Tally:
    """Values of pictures collected under a table and a name, written as their means."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, table: str, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values.setdefault((table, name), []).append(value.float().cpu())

    def write(self, result: Comparison, column: str) -> None:
        for (table, name), values in self.values.items():
            empty: Figures = dict.fromkeys(("base", "learned", "base_held_out", "learned_held_out"))
            getattr(result, table).setdefault(name, empty)[column] = float(torch.cat(values).mean())


def _spread_ratios(base: list[dict[str, Tensor]], learned: list[dict[str, Tensor]]) -> dict[str, float]:
    """Spread over seeds, root mean square over prompts, learned over base, of all that the base varies."""
    ratios = {}
    for name in base[0] if base else ():
        before, after = (
            torch.tensor([spread(properties[name]) for properties in side]).square().mean().sqrt()
            for side in (base, learned)
        )
        if before > 0:
            ratios[name] = float(after / before)
    return ratios
