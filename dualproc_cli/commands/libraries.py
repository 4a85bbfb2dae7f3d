"""Importing torch, transformers and diffusers in less time: most of a short command's time goes there."""

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dualproc_cli.interrupts import quiet_interrupts
from dualproc_cli.spec import GeneratorSpec, VlmSpec
from dualproc_cli.spec.measures import LineWeightMeasure, MeasureSpec
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.stages import stage

# What transformers, diffusers and torch.compile import wherever it is installed. The miniature needs none.
OPTIONAL = ("bitsandbytes", "torchao", "scipy", "triton")
owns_process = False  # true in a process that runs one command and ends


@contextmanager
def importing(
    *models: GeneratorSpec | VlmSpec | None, measures: Iterable[str | MeasureSpec] = ()
) -> Iterator[None]:
    """Import large libraries inside the block, for a command that uses ``models`` and ``measures``.

    Garbage collection waits, since a million new objects stay. In a process of one command, it never looks at
    them again, and the `OPTIONAL` packages count as not installed if all models are the miniature and no
    measure uses any.
    """
    stage("loading libraries")
    used = [model for model in models if model is not None]
    needed = any(isinstance(measure, LineWeightMeasure) for measure in measures)  # it uses SciPy
    if owns_process and used and not needed and all(_plain_miniature(model) for model in used):
        for name in OPTIONAL:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    collects = gc.isenabled()
    gc.disable()
    try:
        with quiet_interrupts():
            yield
    finally:
        if owns_process:
            gc.freeze()
        if collects:
            gc.enable()


def _plain_miniature(spec: GeneratorSpec | VlmSpec) -> bool:
    compiled = isinstance(spec, GeneratorSpec) and spec.compile  # by triton, on a GPU
    return spec.model == MINIATURE and spec.quantization == "none" and not compiled
