"""Which way of reading answers off a VLM is right for it: tried on noise, the fastest first."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.vlm.chat import Prompts, picture_inputs
from dualproc_cli.vlm.load import Vlm
from dualproc_cli.vlm.prefix import Query, generated, lookahead, plain, shared_prefix, shared_vision

logger = logging.getLogger(__name__)

Way = Callable[[Query], Tensor]

# Nats by which an answer token may differ from its definition. Logits of 16 bits are multiples of up to 1/8,
# so with them `lookahead` is what tells a prefix-LM, and this only a gross mistake.
TOLERANCE = 1e-3
TOLERANCE_16_BIT = 0.5
ADVICE = "choose another model, or report this with the versions of transformers and torch"
LOOKAHEAD = 0.02  # prefix-LMs are around 0.2, rounding is below 0.005


@dataclass(frozen=True)
class Mode:
    """A way of reading answers."""

    name: str  # cache | vision | separate
    way: Way
    batched: bool  # all pictures in one pass, or one by one
    reason: str = ""  # why no faster way is right

    def __str__(self) -> str:
        return self.name if self.batched else f"{self.name}, picture by picture"


# Without pictures of values to compare on: all ways for causal models, the fastest first.
WAYS = (
    Mode("cache", shared_prefix, True),
    Mode("vision", shared_vision, True),
    Mode("separate", plain, True),
)


@dataclass(frozen=True)
class Reader:
    """Reads answers off pictures of one size with a frozen VLM."""

    vlm: Vlm
    prompts: Prompts
    beside: Tensor | None  # [3, h, w] in [0, 1], shown after each picture

    @property
    def kind(self) -> str:
        return type(self.vlm.model).__name__

    def read(self, way: Way, images: Tensor, asked: Sequence[int], batched: bool) -> Tensor:
        """Answer tokens' log-probabilities [B, T], where the images [B, 3, H, W] in [0, 1] are."""
        device, dtype = self.vlm.device, self.vlm.dtype
        group = [] if self.beside is None else [self.beside.to(device, torch.float32)]
        found = []
        for part in [images] if batched else images.split(1):
            pictures = [[image, *group] for image in part.to(device, torch.float32)]
            inputs = picture_inputs(self.vlm.processor, pictures, self.prompts.pixel_keys)
            inputs = {k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
            found.append(way(Query(self.vlm.model, self.prompts, asked, inputs, len(part))))
        return torch.cat(found).to(images.device)


def choose(reader: Reader, height: int, width: int) -> Mode:
    """The fastest way that agrees with its definition on two noise pictures and has a gradient.

    Raises:
        UserError: no way works, for instance because the processor does not keep the graph.
    """
    noise = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(reader.vlm.device)
    causal, definition, expected = _define(reader, noise)
    ways: dict[str, Way] = {"cache": shared_prefix, "vision": shared_vision, "separate": definition}
    faults: list[str] = []
    if not reader.prompts.holds_pictures:
        faults.append("cache: the picture comes after the question")
    elif not causal:
        faults.append("cache: the model reads the picture with the question in mind (prefix-LM)")
    if faults:
        ways.pop("cache")
    for mode in [Mode(name, way, batched) for name, way in ways.items() for batched in (True, False)]:
        fault = _fault(reader, mode, noise, expected)
        if fault is None:
            if faults:
                logger.warning("questions are read in mode %s, because %s", mode, "; ".join(faults))
            return replace(mode, reason="; ".join(faults))
        faults.append(f"{mode}: {fault}")
    raise UserError(f"vlm.model: cannot learn from {reader.kind}'s answers: {'; '.join(faults)}; {ADVICE}")


def _define(reader: Reader, noise: Tensor) -> tuple[bool, Way, Tensor]:
    """Whether the model is causal, what defines its answers, and those about the noise [2, T]."""
    asked = range(len(reader.prompts.tokens))
    try:
        with torch.no_grad():
            causal = reader.read(lookahead, noise[:1], asked, True).max().item() < LOOKAHEAD
            definition = plain if causal else generated
            expected = reader.read(definition, noise, asked, False)
            if reader.beside is None:
                return causal, definition, expected
            other = torch.rand(reader.beside.shape, generator=torch.Generator().manual_seed(1))
            found = replace(reader, beside=other).read(definition, noise[:1], asked, False)
    except Exception as error:  # a family may fail in any way inside its own forward
        raise UserError(
            f"vlm.model: {reader.kind} cannot be asked about a picture ({_line(error)}); {ADVICE}"
        ) from error
    if torch.equal(found, expected[:1]):
        raise UserError(
            f"vlm.model: {reader.kind} cannot see a second picture; choose another model, or lay the visual "
            "prompt over the picture instead of beside it"
        )
    return causal, definition, expected


def _fault(reader: Reader, mode: Mode, noise: Tensor, expected: Tensor) -> str | None:
    """What is wrong with a way of reading, or None."""
    pictures = noise.clone().requires_grad_()
    try:
        with torch.enable_grad():
            found = reader.read(mode.way, pictures, range(len(reader.prompts.tokens)), mode.batched)
            (gradient,) = torch.autograd.grad(found.sum(), pictures)
    except Exception as error:  # as above
        return _line(error)
    difference = (found.detach() - expected).abs().max().item()
    if not difference <= (TOLERANCE if reader.vlm.dtype == torch.float32 else TOLERANCE_16_BIT):
        return f"differs from a plain forward by {difference:.2g}"
    if not gradient.isfinite().all() or not gradient.any():
        return "has no finite gradient for the picture"
    return None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]
