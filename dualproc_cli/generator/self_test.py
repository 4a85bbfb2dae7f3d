"""The self-test of a generator: how it returns pictures, and whether gradients reach its adapter."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NoReturn, Protocol

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.generator.conventions import Conventions
from dualproc_cli.generator.schedulers import scheduler_advice
from dualproc_cli.generator.steered_call import SteeredCall, SteeredPictures
from dualproc_cli.generator.steering import Inputs, Steering
from dualproc_cli.models.load_errors import first_line, missing_package
from dualproc_cli.spec import GeneratorSpec, GradientSpec

PROMPT = "a picture"
LONGER = "a picture of a house"
SMALL = 128  # pixels; large models draw at this size, which is fast
STEPS = 2  # some schedulers behave differently on their first step
VISIBLE = 1e-2  # above half precision's rounding errors; 2.5 of 255 levels
UNIT = 0.1  # noise whose standard deviation is this near to 1 is unit noise
ANY = 1e-3  # above the difference between two runs of the same computation


class Tested(Protocol):
    """The part of a `Generator` that the self-test uses."""

    spec: GeneratorSpec
    pipeline: DiffusionPipeline
    conventions: Conventions

    @property
    def call(self) -> Callable[..., tuple[Any, int]]:
        """Calls the pipeline: see `Generator.call`."""
        ...

    def steered(self) -> AbstractContextManager[SteeredPictures]:
        """Steers inside the block: see `Generator.steered`."""
        ...


def find_conventions(generator: Tested) -> Conventions:
    """Draw a small picture as a tensor and as an array, and derive the pipeline's conventions from them.

    Args:
        generator: the generator to test; its ``conventions`` are changed during the test.

    Raises:
        UserError: the pipeline cannot draw a picture from a prompt, or its values are in an unknown range.
    """
    spec = generator.spec
    sizes = {(min(spec.width, SMALL), min(spec.height, SMALL)), (spec.width, spec.height)}
    failure: Exception | None = None
    for batches, (width, height) in itertools.product((True, False), sorted(sizes)):
        generator.conventions = Conventions(width, height, batches=batches)
        try:
            images, taken = _try(generator, "pt")
            arrays, _ = _try(generator, "np")
        except Exception as error:
            # Pipelines that need more than a prompt raise all types of errors here.
            failure = failure or error
            continue
        low = _black(generator, images, torch.as_tensor(arrays))
        idle = _idle(generator, taken)
        generator.conventions = replace(generator.conventions, low=low, idle_timesteps=idle)
        return replace(generator.conventions, batches=batches and _batches(generator, images))
    package = missing_package(failure)
    raise UserError(
        f"generator.model: {spec.model}: {_name(generator)} draws no picture of {spec.width} x {spec.height} "
        f"from a prompt ({first_line(failure)}); "
        + (
            f"it needs a package that is missing: pip install {package}"
            if package
            else "expected a text-to-image pipeline and a size that it can draw" + scheduler_advice(failure)
        )
    ) from failure


def count_idle_timesteps(generator: Tested) -> int:
    """Return how many of the scheduler's timesteps the pipeline never steps through."""
    _, taken = _draw(generator, [PROMPT])
    return _idle(generator, taken)


def check_gradients(generator: Tested, tensors: dict[str, nn.Parameter]) -> None:
    """Check that recording a graph does not change the picture, and that gradients reach the adapter.

    Weights that do not affect the picture need no gradient.

    Args:
        generator: a generator with a new adapter, which has no effect yet.
        tensors: the adapter's weights by name.

    Raises:
        UserError: a check failed; the message names it.
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
        _fail(generator, f"its gradients are not finite in {generator.spec.dtype}")


def probe_inputs(generator: Tested, where: Sequence[str]) -> Inputs:
    """Draw a picture, and return what it started from, if the inputs in ``where`` can be steered.

    Raises:
        UserError: one of them cannot; the message names it.
    """
    with uncompiled(), SteeredCall(generator.pipeline, 1).watched() as seen:
        generator.call([PROMPT], [0], steps=min(generator.spec.steps, STEPS))
    noise = seen.noise
    if noise is not None and not (noise.is_floating_point() and noise.ndim >= 3 and len(noise) == 1):
        noise = None
    if "noise" in where and noise is None:
        _cannot_steer(generator, "noise", "it draws its noise in a way of its own")
    if "conditioning" in where and not seen.found:
        _cannot_steer(generator, "conditioning", "its text encoders return no embeddings")
    sigma = 1.0 if noise is None else float(noise.detach().float().std())
    return Inputs(
        latents=None if noise is None else tuple(noise.shape[1:]),
        sigma=1.0 if abs(sigma - 1) < UNIT else sigma,
        aspect=generator.spec.height / generator.spec.width,
        embeddings=seen.found,
    )


def check_steering(generator: Tested, steering: Steering) -> None:
    """Check that gradients reach all that is steered, and drop the offsets that no picture depends on.

    Raises:
        UserError: no gradient reaches the noise, or none of the offsets.
    """
    with generator.steered() as pictures:
        drawn = _small(generator, GradientSpec(through="last-steps", steps=1))
        picture = pictures.recolored(generator.conventions.picture(drawn))
    if not picture.requires_grad:
        which = "conditioning" if len(steering.offsets) else "noise"
        _cannot_steer(generator, which, "no gradient reaches its picture from there")
    tensors = dict(steering.named_parameters())
    gradients = torch.autograd.grad(picture.mean(), list(tensors.values()), allow_unused=True)
    found = zip(tensors, gradients, strict=True)
    moved = {name for name, gradient in found if gradient is not None and gradient.any()}
    if steering.noise is not None and not any(name.startswith("noise.") for name in moved):
        _cannot_steer(generator, "noise", "no gradient reaches its noise")
    steered = list(steering.offsets)
    for name in steered:
        if f"offsets.{name}" not in moved:
            del steering.offsets[name]
    if steered and not len(steering.offsets):
        _cannot_steer(generator, "conditioning", "no gradient reaches its text embeddings")


def _cannot_steer(generator: Tested, which: str, why: str) -> NoReturn:
    raise UserError(
        f"learn.where: {which}: {_name(generator)} cannot be steered there ({why}); leave {which} out"
    )


def _matter(generator: Tested, tensors: dict[str, nn.Parameter], missing: list[str], plain: Tensor) -> bool:
    # A last block may compute text features that are not used: its weights have no gradient and need none.
    weights = [tensors[name] for name in missing]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(1)
        difference = _difference(plain, _small(generator, None))
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
    return difference > ANY


def _small(generator: Tested, gradient: GradientSpec | None) -> Tensor:
    return _draw(generator, [PROMPT], gradient=gradient)[0]


def _try(generator: Tested, output_type: str) -> tuple[Any, int]:
    images, taken = _draw(generator, [PROMPT], output_type=output_type)
    size = generator.conventions.height, generator.conventions.width
    expected = [(1, channels, *size) if output_type == "pt" else (1, *size, channels) for channels in (3, 4)]
    if tuple(images.shape) not in expected:
        raise ValueError(f"it gave {tuple(images.shape)}, expected {expected[0]}")
    return images, taken


def _idle(generator: Tested, taken: int) -> int:
    return len(generator.pipeline.components["scheduler"].timesteps) - taken


def _batches(generator: Tested, alone: Tensor) -> bool:
    # The longer prompt goes first, which also finds pipelines that pad the other one without a mask.
    try:
        together, _ = _draw(generator, [LONGER, PROMPT])
    except Exception:  # a pipeline made for one prompt may raise anything
        return False
    if len(together) != 2:
        return False
    # A batch of another size is rounded differently, which the mean hardly shows.
    difference = (together[1:].float() - alone.float()).abs().mean().item()
    return difference <= (ANY if generator.pipeline.dtype == torch.float32 else VISIBLE)


def _draw(generator: Tested, prompts: list[str], **options: Any) -> tuple[Any, int]:
    size, steps = generator.conventions, min(generator.spec.steps, STEPS)
    seeds = list(range(len(prompts)))[::-1]
    with uncompiled():
        return generator.call(prompts, seeds, steps=steps, width=size.width, height=size.height, **options)


def _black(generator: Tested, images: Tensor, arrays: Tensor) -> float:
    # Arrays [1, H, W, 3] are in [0, 1] for every pipeline: diffusers makes its PIL pictures from them.
    expected = arrays.permute(0, 3, 1, 2).float().cpu()
    error = {}
    for low in (0.0, -1.0):
        error[low] = (((images.float().cpu() - low) / (1 - low)).clamp(0, 1) - expected).abs().mean().item()
    low = min(error, key=error.__getitem__)
    if not error[low] <= VISIBLE:  # also where half precision overflows to NaN
        _fail(generator, f"its tensors are in neither [0, 1] nor [-1, 1] (off by {error[low]:.2g})")
    return low


def _difference(one: Tensor, other: Tensor) -> float:
    return (one.detach().float() - other.detach().float()).abs().max().item()


def _name(generator: Tested) -> str:
    scheduler = generator.pipeline.components["scheduler"]
    return f"{type(generator.pipeline).__name__} with {type(scheduler).__name__}"


def _fail(generator: Tested, reason: str) -> NoReturn:
    raise UserError(
        f"generator.model: {generator.spec.model}: {_name(generator)} failed its self-test: "
        f"{reason}; choose another model, or report this with the versions of diffusers and torch"
    )
