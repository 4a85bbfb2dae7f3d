"""What a control draws at other strengths of its adapter than the one it was learned at."""

from collections.abc import Sequence

import torch

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.evaluation.ask import ask
from dualproc_cli.evaluation.comparison import Strength
from dualproc_cli.evaluation.referee import Referee
from dualproc_cli.generator import Generator
from dualproc_cli.spec import ControlSpec
from dualproc_cli.stages import stage

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
PICTURES = 32  # at each strength, about


def try_strengths(
    spec: ControlSpec, generator: Generator, loss: CompositeLoss, seeds: Sequence[int]
) -> tuple[Strength, ...]:
    """Draw all prompts at the first few seeds with each strength, and judge the pictures.

    Args:
        spec: the spec that was learned.
        generator: with the learned adapter, loaded by `Generator.load_adapters`.
        loss: the spec's questions, compiled for the VLM trained against.
        seeds: held-out seeds, at least 2.
    """
    few = seeds[: max(2, PICTURES // len(spec.prompts.all))]
    referee, found = Referee(spec, generator, spec.prompts.all, few, loss), []
    for scale in STRENGTHS:
        stage(f"drawing at strength {scale:g}")
        with generator.at_strength(scale):
            drawn = referee.draw(generator)
        shares = referee.shares(drawn)
        answers = {name: float(p.mean()) for name, p in ask(loss, torch.cat(drawn)).items()}
        found.append(Strength(scale, shares.right, shares.clean, shares.right_and_clean, answers))
    return tuple(found)


def best_strength(found: Sequence[Strength]) -> Strength:
    """Return the strength with most right and clean pictures, or the highest P(answer) if that is unknown.

    P(answer) is that of the question with the lowest. Of equals, the nearest to 1 is the best.

    Args:
        found: at least one.
    """

    def order(one: Strength) -> tuple[float, float]:
        known = one.right_and_clean
        return min(one.questions.values()) if known is None else known, -abs(one.scale - 1)

    return max(found, key=order)
