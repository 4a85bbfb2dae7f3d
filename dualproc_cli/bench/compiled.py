"""Whether compiling the denoiser's blocks pays off, and after how many steps."""

import math
import statistics

from dualproc_cli.bench.counters import clock, seconds_of
from dualproc_cli.bench.report import CompilingCost
from dualproc_cli.compiler import compile_loss
from dualproc_cli.generator import Generator
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import Vlm


def measure_compiling(loaded: LoadedSpec, generator: Generator, vlm: Vlm, rounds: int) -> CompilingCost:
    """Measure steps of ``loaded`` with the blocks compiled and without, in turns.

    Args:
        loaded: the spec, whose ``generator.compile`` is true.
        generator: with an adapter, with which it has not drawn yet, so that nothing is compiled.
        vlm: the VLM that answers the questions.
        rounds: steps of each kind; the figures are medians.
    """
    spec = loaded.spec
    learner = Learner(spec, generator, compile_loss(loaded, vlm, spec.generator.height, spec.generator.width))
    read = clock(generator.device)

    def plain() -> float:
        with uncompiled():
            return seconds_of(learner.step, read)

    plain()  # encodes the prompts
    compiling = seconds_of(learner.step, read)
    both = [(seconds_of(learner.step, read), plain()) for _ in range(rounds)]
    fast, slow = (statistics.median(seconds) for seconds in zip(*both, strict=True))
    return CompilingCost(
        compiling_seconds=compiling,
        seconds=fast,
        plain_seconds=slow,
        pays_after=steps_to_pay(compiling, fast, slow),
    )


def steps_to_pay(compiling: float, compiled: float, plain: float) -> int | None:
    """Return after how many steps compiling has paid off; None if it never does.

    Args:
        compiling: seconds of the first step, which compiles.
        compiled: seconds of a step after it.
        plain: seconds of a step without compiled blocks.
    """
    if compiled >= plain:
        return None
    return max(math.ceil((compiling - compiled) / (plain - compiled)), 0)
