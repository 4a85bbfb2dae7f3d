"""Whether compiling the denoiser's blocks pays, and after how many steps."""

import math
import statistics
from typing import Any

from dualproc_cli.bench.counters import clock, seconds_of
from dualproc_cli.compiler import compile_loss
from dualproc_cli.generator import Generator
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import Vlm


def compiled(loaded: LoadedSpec, generator: Generator, vlm: Vlm, rounds: int) -> dict[str, Any]:
    """Measure steps of ``loaded`` with the blocks compiled and without, in turns.

    Args:
        loaded: the spec, whose ``generator.compile`` is true.
        generator: that has not drawn with its adapter yet, so that nothing is compiled.
        vlm: to be asked.
        rounds: steps of each kind; what is reported are medians.

    Returns:
        ``compiling_seconds`` (of the first step), ``seconds`` and ``plain_seconds`` of a step, and
        ``pays_after``, in steps; None where a step is no faster.
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
    return {
        "compiling_seconds": compiling,
        "seconds": fast,
        "plain_seconds": slow,
        "pays_after": math.ceil((compiling - fast) / (slow - fast)) if fast < slow else None,
    }
