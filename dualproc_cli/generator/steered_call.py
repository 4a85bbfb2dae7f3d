"""One call of a pipeline with its inputs steered, or observed: its first noise, and its text embeddings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.generator.noise_draw import noise_replaced
from dualproc_cli.generator.steering import Steering, key
from dualproc_cli.generator.wrapping import wrapped


class SteeredCall:
    """Steers the inputs of one call of ``pipeline`` for ``count`` pictures; observes them without steering.

    With ``records``, steering is recorded for a gradient, also where the pipeline records nothing itself.

    Attributes:
        nats: [count] what steering the noise cost, with its graph; None if it was not steered.
        noise: the noise that was drawn, before it was steered.
        tokens: embeddings [B, D] or [B, L, D] that the text encoders returned, call by call, by `key`.
        embeddings: their means [count, D] over the tokens.
        found: the numbers of tokens and channels, and the root mean square, of what they returned for the
            first prompts, by `key`.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, count: int, steering: Steering | None = None, records: bool = False
    ) -> None:
        self.pipeline, self.count, self.steering, self.records = pipeline, count, steering, records
        self.nats: Tensor | None = None
        self.noise: Tensor | None = None
        self.tokens: dict[str, list[Tensor]] = {}
        self.embeddings: dict[str, Tensor] = {}
        self.found: dict[str, tuple[int, int, float]] = {}
        self._encoded: dict[str, int] = {}  # how many prompts each text encoder has encoded

    @contextmanager
    def watched(self) -> Iterator["SteeredCall"]:
        """Wrap the pipeline's text encoders and its drawing of noise inside the block."""
        with ExitStack() as stack:
            stack.enter_context(noise_replaced(self.pipeline, self._draw))
            for name, encoder in text_encoders(self.pipeline).items():
                stack.enter_context(wrapped(encoder, "forward", self._encode(name)))
            yield self

    def recolored(self, images: Tensor) -> Tensor:
        """Return the call's pictures [count, 3, H, W] in [0, 1] in the colours that steering gives them."""
        if self.steering is None or self.steering.colors is None:
            return images
        with torch.set_grad_enabled(self.records):
            return self.steering.colors(images, self.steering.about_prompts(self.embeddings, self.count))

    def _draw(self, latents: Tensor) -> Tensor:
        if self.noise is not None:
            return latents
        self.noise = latents
        if self.steering is None or self.steering.noise is None:
            return latents
        prompts = self.steering.about_prompts(self.embeddings, len(latents))
        with torch.set_grad_enabled(self.records):
            steered, self.nats = self.steering.noise(latents, prompts)
        return steered

    def _encode(self, name: str) -> Callable[..., Any]:
        def encode(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            inputs = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            rows, before = next((len(value) for value in inputs), 0), self._encoded.get(name, 0)
            # The prompts come first. What is encoded after them are negative prompts, which stay as they are;
            # only where both are encoded together (PRX), the negative ones come first.
            own = slice(max(rows - self.count, 0), rows)
            if rows == 0 or before >= self.count:
                return output
            self._encoded[name] = before + rows
            if self.records and self.steering is not None and len(self.steering.offsets):
                # Some pipelines record nothing around their text encoder. From here on, and until that block
                # ends, they do.
                torch.set_grad_enabled(True)
            found: dict[str, Tensor] = {}
            output = self._steered(name, output, own, found)
            self._observe(found, kwargs.get("attention_mask"), own)
            return output

        return encode

    def _steered(self, name: str, output: Any, own: slice, found: dict[str, Tensor]) -> Any:
        """Return a text encoder's output with offsets added to the rows ``own`` of its embeddings.

        They are found wherever they are in it, [rows, D] or [rows, L, D], and put into ``found`` by `key`:
        of several layers, the last.
        """
        if isinstance(output, Tensor):
            if not (output.is_floating_point() and output.ndim in (2, 3) and len(output) == own.stop):
                return output
            which = key(name, output)
            found[which] = output
            if self.steering is None or which not in self.steering.offsets:
                return output
            steered = self.steering.offset(which, output[own])
            return torch.cat([output[: own.start], steered]) if own.start else steered
        if isinstance(output, Mapping):
            parts = {
                part: value if part == "logits" else self._steered(name, value, own, found)
                for part, value in output.items()
            }
            return type(output)(**parts)
        if isinstance(output, (tuple, list)):
            return type(output)([self._steered(name, value, own, found) for value in output])
        return output

    def _observe(self, found: Mapping[str, Tensor], mask: Tensor | None, own: slice) -> None:
        """Remember the mean embeddings of some prompts, over those tokens that ``mask`` [rows, L] has."""
        for which, embedding in found.items():
            rows = embedding.detach()[own]
            self.tokens.setdefault(which, []).append(rows)
            rows = rows.float()
            if rows.ndim == 3:
                valid = torch.ones_like(rows[..., 0])
                if mask is not None and mask.shape == embedding.shape[:2]:
                    valid = mask[own].to(valid)
                rows = (rows * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
            before = self.embeddings.get(which)
            self.embeddings[which] = rows if before is None else torch.cat([before, rows])
            if self.steering is None:
                scale = float(embedding.detach().float().square().mean().sqrt())
                tokens = embedding.shape[1] if embedding.ndim == 3 else 0
                self.found[which] = tokens, embedding.shape[-1], scale


class SteeredPictures:
    """The pictures that were last drawn steered, and what steering them cost.

    Attributes:
        calls: the calls that drew them, one or more pictures each.
        recoloring: by how much they were recoloured: mean absolute change [B], with its graph.
    """

    def __init__(self) -> None:
        self.calls: list[SteeredCall] = []
        self.recoloring = torch.zeros(0)

    def recolored(self, images: Tensor) -> Tensor:
        """Return the pictures [B, 3, H, W] in [0, 1] in the colours that steering gives them."""
        parts = images.split([call.count for call in self.calls])
        found = torch.cat([call.recolored(part) for call, part in zip(self.calls, parts, strict=True)])
        self.recoloring = (found - images).abs().mean((1, 2, 3))
        return found

    def tokens(self) -> dict[str, list[Tensor]]:
        """Return the embeddings [B, D] or [B, L, D] of their prompts, call by call, by `key`."""
        found: dict[str, list[Tensor]] = {}
        for call in self.calls:
            for which, parts in call.tokens.items():
                found.setdefault(which, []).extend(parts)
        return found

    def noise_nats(self) -> Tensor:
        """Return what steering their noise cost, [B] in nats, with its graph."""
        return torch.cat([call.nats for call in self.calls if call.nats is not None])


def text_encoders(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """Return the pipeline's text encoders by name."""
    return {
        name: module
        for name, module in pipeline.components.items()
        if name.startswith("text_encoder") and isinstance(module, nn.Module)
    }
