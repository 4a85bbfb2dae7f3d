"""Which way of reading answers off a VLM is right for it: tried on noise, the fastest first."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.vlm.chat import Prompts, picture_inputs
from dualproc_cli.vlm.load import Vlm
from dualproc_cli.vlm.prefix import foresight, plain, separate, shared_prefix, shared_vision

logger = logging.getLogger(__name__)

Way = Callable[..., Tensor]

# Each way with its definition: a prefix-LM reads an answer that it is given like a prompt, so where the cache does not
# serve, what `generate` does is the definition.
WAYS: dict[str, tuple[Way, Way]] = {
    "cache": (shared_prefix, plain),
    "vision": (shared_vision, separate),
    "separate": (separate, separate),
}
# Nats by which an answer token may differ between a way and its definition. Logits of 16 bits are multiples of up to
# 1/8, so there `foresight` is what tells a prefix-LM, and this only a gross mistake.
TOLERANCE = 1e-3
TOLERANCE_16_BIT = 0.5
FORESIGHT = 0.02  # prefix-LMs are around 0.2, rounding is below 0.005


@dataclass(frozen=True)
class Reader:
    """Reads answers off pictures of one size with a frozen VLM."""

    vlm: Vlm
    prompts: Prompts
    beside: Tensor | None  # [3, h, w] in [0, 1], shown after each picture

    def read(self, way: Way, images: Tensor, asked: Sequence[int], batched: bool) -> Tensor:
        """Answer tokens' log-probabilities [B, T] for images [B, 3, H, W] in [0, 1], in one pass or one by one."""
        device, dtype = self.vlm.device, self.vlm.dtype
        group = [] if self.beside is None else [self.beside.to(device, torch.float32)]
        found = []
        for part in [images] if batched else images.split(1):
            pictures = [[image, *group] for image in part.to(device, torch.float32)]
            inputs = picture_inputs(self.vlm.processor, pictures, self.prompts.pixel_keys)
            inputs = {k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
            found.append(way(self.vlm.model, self.prompts, asked, inputs, len(part)))
        return torch.cat(found)


def choose(reader: Reader, height: int, width: int) -> tuple[str, bool]:
    """The fastest way that agrees with its definition on two noise pictures and has a gradient.

    Returns:
        the way's name, and whether it reads all pictures in one pass.

    Raises:
        UserError: no way works, for instance because the processor does not keep the graph.
    """
    noise = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(reader.vlm.device)
    faults: list[str] = []
    for name in WAYS:
        if name == "cache" and (fault := _unshareable(reader, noise)):
            faults.append(f"cache: {fault}")
            continue
        for batched in (True, False):
            fault = _fault(reader, name, noise, batched)
            if fault is None:
                if faults:
                    logger.warning("questions are read in mode %s, because %s", _title(name, batched), "; ".join(faults))
                return name, batched
            faults.append(f"{_title(name, batched)}: {fault}")
    raise UserError(f"vlm.model: cannot learn from this model's answers: {'; '.join(faults)}")


def _unshareable(reader: Reader, noise: Tensor) -> str | None:
    """Why this model's prefix cannot be shared, or None."""
    if not reader.prompts.holds_pictures:
        return "the picture comes after the question"
    try:
        with torch.no_grad():
            change = reader.read(foresight, noise[:1], _every(reader), True).max().item()
    except Exception as error:  # a family may fail in any way inside its own forward
        return _raised(error)
    return "the model reads the picture with the question in mind (prefix-LM)" if change > FORESIGHT else None


def _fault(reader: Reader, name: str, noise: Tensor, batched: bool) -> str | None:
    """What is wrong with a way of reading, or None."""
    way, definition = WAYS[name]
    pictures = noise.clone().requires_grad_()
    try:
        with torch.no_grad():
            reference = reader.read(definition, noise, _every(reader), False)
        with torch.enable_grad():
            found = reader.read(way, pictures, _every(reader), batched)
            (gradient,) = torch.autograd.grad(found.sum(), pictures)
    except Exception as error:  # as above
        return _raised(error)
    difference = (found.detach() - reference).abs().max().item()
    if not difference <= (TOLERANCE if reader.vlm.dtype == torch.float32 else TOLERANCE_16_BIT):
        return f"differs from a plain forward by {difference:.2g}"
    if not gradient.isfinite().all() or not gradient.any():
        return "has no finite gradient for the picture"
    return None


def _every(reader: Reader) -> range:
    return range(len(reader.prompts.tokens))


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else '(no message)'}"


def _title(name: str, batched: bool) -> str:
    return name if batched else f"{name}, picture by picture"
