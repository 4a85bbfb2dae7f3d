"""The place in a pipeline's call where its noise is drawn."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from dualproc_cli.generator.wrapping import wrapped

METHOD = "prepare_latents"  # the method in which nearly all pipelines of diffusers draw their noise
FUNCTION = "randn_tensor"  # the function with which the others do, in their own module


@contextmanager
def noise_replaced(pipeline: DiffusionPipeline, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the noise that ``pipeline`` draws by ``replace(noise)`` inside the block.

    ``noise`` [B, ...] is in the pipeline's own layout, and as large as its first step expects it.
    """

    def draw(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not isinstance(result, tuple):
            return replace(result)
        return (replace(result[0]), *result[1:])  # what comes after it are positions, and the like

    module = sys.modules[type(pipeline).__module__]
    if hasattr(pipeline, METHOD):
        with wrapped(pipeline, METHOD, draw):
            yield
    else:
        with wrapped(module, FUNCTION, draw) if hasattr(module, FUNCTION) else nullcontext():
            yield
