"""One call of a pipeline with its inputs steered, or observed: its first noise, and its text embeddings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.generator.steering import Steering, key
from dualproc_cli.generator.wrapping import wrapped

NOISE = "prepare_latents"  # the method in which nearly all pipelines of diffusers draw their noise


class SteeredCall:
    """Steers the inputs of one call of ``pipeline`` for ``count`` pictures; observes them without steering.

    With ``records``, steering is recorded for a gradient, also where the pipeline records nothing itself.

    Attributes:
        nats: [count] what steering the noise cost, with its graph; None if it was not steered.
        noise: the noise that was drawn, before it was steered.
        embeddings: mean embeddings [rows, D] that the text encoders returned, by `key`.
        scales: their root mean squares, by `key`.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, count: int, steering: Steering | None = None, records: bool = False
    ) -> None:
        self.pipeline, self.count, self.steering, self.records = pipeline, count, steering, records
        self.nats: Tensor | None = None
        self.noise: Tensor | None = None
        self.embeddings: dict[str, Tensor] = {}
        self.scales: dict[str, float] = {}
        self._served: dict[str, int] = {}

    @contextmanager
    def watched(self) -> Iterator["SteeredCall"]:
        """Wrap the pipeline's text encoders and its drawing of noise inside the block."""
        with ExitStack() as stack:
            if hasattr(self.pipeline, NOISE):
                stack.enter_context(wrapped(self.pipeline, NOISE, self._draw))
            for name, module in text_encoders(self.pipeline).items():
                stack.enter_context(wrapped(module, "forward", self._encode(name)))
            yield self

    def _draw(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if self.noise is not None:
            return result
        latents = result[0] if isinstance(result, tuple) else result
        self.noise = latents
        if self.steering is None or self.steering.noise is None:
            return result
        prompts = self.steering.about_prompts(self.embeddings, len(latents))
        with torch.set_grad_enabled(self.records):
            steered, self.nats = self.steering.noise(latents, prompts)
        return (steered, *result[1:]) if isinstance(result, tuple) else steered

    def _encode(self, name: str) -> Callable[..., Any]:
        def encode(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            # The prompts come first. What is encoded after them are negative prompts, which stay as they are.
            served = self._served.get(name, 0)
            if served >= self.count:
                return output
            return self._steered(name, output)

        return encode

    def _steered(self, name: str, output: Any) -> Any:
        """Return a text encoder's output with offsets added to its embeddings, wherever they are in it."""
        if isinstance(output, Tensor):
            return self._embedding(name, output) if _is_embedding(output) else output
        if isinstance(output, Mapping):
            return type(output)(**{part: self._steered(name, value) for part, value in output.items()})
        if isinstance(output, (tuple, list)):
            return type(output)([self._steered(name, value) for value in output])
        return output

    def _embedding(self, name: str, embedding: Tensor) -> Tensor:
        which = key(name, embedding)
        self._served[name] = max(self._served.get(name, 0), len(embedding))
        if which not in self.embeddings:
            with torch.no_grad():
                rows = embedding.flatten(1, -2).mean(1) if embedding.ndim > 2 else embedding
                self.embeddings[which] = rows
                self.scales[which] = float(embedding.float().square().mean().sqrt())
        if self.steering is None:
            return embedding
        with torch.set_grad_enabled(self.records):
            return self.steering.offset(which, embedding)


def text_encoders(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """Return the pipeline's text encoders by name."""
    return {
        name: module
        for name, module in pipeline.components.items()
        if name.startswith("text_encoder") and isinstance(module, nn.Module)
    }


def _is_embedding(value: Tensor) -> bool:
    return value.is_floating_point() and value.ndim in (2, 3)
