"""What a generator is asked before it is trusted: how it hands out pictures, whether gradients are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.spec import GradientSpec

if TYPE_CHECKING:
    from dualproc_cli.generator.generator import Generator

PROMPT = "a picture"
SMALL = 128  # pixels; large models are asked at this size, which takes a moment
STEPS = 2  # some schedulers behave otherwise on their first step
VISIBLE = 1e-2  # a difference that rounding does not make in half precision (2.5 of 255 levels)
ANY = 1e-3  # a difference that the same computation does not make twice


@dataclass(frozen=True)
class Conventions:
    """How a pipeline hands out its pictures, learned by trying."""

    width: int
    """Of the pictures that the self-test draws, in pixels."""
    height: int
    low: float = 0.0
    """What black is: 0, or -1 for the pipelines whose tensors are in [-1, 1]. White is 1."""
    idle_timesteps: int = 0
    """Entries of the scheduler's timesteps that are no steps (SANA-Sprint keeps a last boundary there)."""


def measure(generator: Generator) -> Conventions:
    """Draw a small picture as tensor and as array, and learn the conventions from them.

    Raises:
        UserError: the pipeline draws no picture from a prompt, or one in an unknown range.
    """
    spec = generator.spec
    sizes = {(min(spec.width, SMALL), min(spec.height, SMALL)), (spec.width, spec.height)}
    failure: Exception | None = None
    for width, height in sorted(sizes):
        try:
            images, taken = _try(generator, width, height, "pt")
            arrays, _ = _try(generator, width, height, "np")
        except Exception as error:
            # Whatever a pipeline raises here, a prompt is all it was given.
            failure = error
            continue
        low = _black(generator, images, torch.as_tensor(arrays))
        idle = len(generator.pipeline.components["scheduler"].timesteps) - taken
        return Conventions(width, height, low, idle)
    raise UserError(
        f"generator.model: {spec.model}: {type(generator.pipeline).__name__} draws no picture of "
        f"{spec.width} x {spec.height} from a prompt ({first_line(failure)}); expected a text-to-image "
        "pipeline and a size that it can draw"
    ) from failure


def check_gradients(generator: Generator, tensors: dict[str, nn.Parameter]) -> None:
    """Check that recording a graph leaves the picture alone and gradients reach every weight that matters.

    Args:
        generator: whose adapter is new, so that B is zero.
        tensors: the adapter's weights by name, A and B of every layer.

    Raises:
        UserError: naming what failed.
    """
    plain, graphed = _small(generator, None), _small(generator, GradientSpec(through="last-steps", steps=1))
    if _difference(plain, graphed) > VISIBLE:
        _fail(generator, "its picture changes when gradients are recorded")
    if not graphed.requires_grad:
        _fail(generator, "no gradient reaches its picture")
    gradients = torch.autograd.grad(graphed.mean(), list(tensors.values()), allow_unused=True)
    missing = [name for name, gradient in zip(tensors, gradients, strict=True) if gradient is None]
    if missing and _matter(generator, tensors, missing, plain):
        _fail(generator, f"no gradient reaches {len(missing)} of its weights: {', '.join(missing)}")
    if not all(gradient.isfinite().all() for gradient in gradients if gradient is not None):
        _fail(generator, f"its gradients overflow in {generator.spec.dtype}")


def _matter(
    generator: Generator, tensors: dict[str, nn.Parameter], missing: list[str], plain: Tensor
) -> bool:
    # A last block may compute text features that nobody reads: its weights have no gradient and need none.
    updates = [tensors[name] for name in missing if ".lora_B." in name]
    with torch.no_grad():
        for update in updates:
            update.fill_(1)
        difference = _difference(plain, _small(generator, None))
        for update in updates:
            update.zero_()
    return difference > ANY


def _small(generator: Generator, gradient: GradientSpec | None) -> Tensor:
    size = generator.conventions
    return generator.call(
        [PROMPT],
        [0],
        gradient=gradient,
        steps=min(generator.spec.steps, STEPS),
        width=size.width,
        height=size.height,
    )[0]


def _try(generator: Generator, width: int, height: int, output_type: str) -> tuple[Any, int]:
    steps = min(generator.spec.steps, STEPS)
    images, taken = generator.call(
        [PROMPT], [0], steps=steps, width=width, height=height, output_type=output_type
    )
    expected = (1, 3, height, width) if output_type == "pt" else (1, height, width, 3)
    if tuple(images.shape) != expected:
        raise ValueError(f"it gave {tuple(images.shape)}, expected {expected}")
    return images, taken


def _black(generator: Generator, images: Tensor, arrays: Tensor) -> float:
    # Arrays [1, H, W, 3] are in [0, 1] everywhere, since diffusers makes its PIL pictures of them.
    expected = arrays.permute(0, 3, 1, 2).float()
    error = {}
    for low in (0.0, -1.0):
        error[low] = (((images.float().cpu() - low) / (1 - low)).clamp(0, 1) - expected).abs().mean().item()
    low = min(error, key=error.__getitem__)
    if not error[low] <= VISIBLE:  # not a number, where half precision overflows
        _fail(generator, f"its tensors are in neither [0, 1] nor [-1, 1] (off by {error[low]:.2g})")
    return low


def _difference(one: Tensor, other: Tensor) -> float:
    return (one.detach().float() - other.detach().float()).abs().max().item()


def first_line(error: Exception | None) -> str:
    """What ``error`` says, in one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _fail(generator: Generator, reason: str) -> None:
    raise UserError(
        f"generator.model: {generator.spec.model}: {type(generator.pipeline).__name__} failed its self-test: "
        f"{reason}; choose another model, or report this with the versions of diffusers and torch"
    )
