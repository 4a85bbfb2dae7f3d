"""A diffusers pipeline run through its own ``__call__``, with a gradient through chosen denoising steps.

``DiffusionPipeline.__call__`` is wrapped by ``torch.no_grad``, which keeps the bare function; called directly
it draws the same pictures with an autograd graph. Which steps are in that graph is decided at the one place
every pipeline passes through: its scheduler, whose instance is wrapped for the length of the call.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator.clean_estimate import clean_estimate
from dualproc_cli.generator.noise_draw import noise_replaced
from dualproc_cli.generator.renoise import renoised
from dualproc_cli.generator.wrapping import wrapped
from dualproc_cli.models.load_errors import first_line
from dualproc_cli.spec import GradientSpec

# From where on a call is recorded: from the steps that `GradientSpec` names; from the text embeddings on, but
# for the steps that it does not name; or from the noise on, through every step.
Start = Literal["steps", "conditioning", "noise"]


def run_pipeline(
    pipeline: DiffusionPipeline,
    denoiser: nn.Module,
    arguments: dict[str, Any],
    gradient: GradientSpec | None,
    idle_timesteps: int,
    start: Start = "steps",
) -> tuple[Any, int]:
    """Call ``pipeline`` with ``arguments``, recording a graph only where ``gradient`` asks for it.

    ``last-steps`` with K steps records the last K calls of the scheduler's ``step``, and the decoder.
    ``x0-jump`` at step K records the K-th call alone: the clean picture predicted there is decoded at once,
    and the remaining steps are skipped (Luo et al. 2025). With ``renoise``, all steps are taken first, and
    the K-th starts from what they drew with fresh noise. Without ``gradient`` nothing is recorded.

    Args:
        pipeline: the pipeline to call, whose ``scheduler`` decides the steps.
        denoiser: the transformer or UNet of ``pipeline``.
        arguments: arguments of the pipeline's ``__call__``; ``generator`` is also given to schedulers that
            draw noise.
        gradient: through which steps to differentiate; its step is not random.
        idle_timesteps: how many of the scheduler's timesteps the pipeline never steps through.
        start: from where on a graph is recorded, if ``gradient`` is given.

    Returns:
        The pipeline's pictures, and how many scheduler steps it took.

    Raises:
        UserError: after an x0-jump the pipeline cannot go on without its denoiser, or its scheduler gives no
            clean estimate or adds no noise.
    """
    call = inspect.unwrap(type(pipeline).__call__)

    def watch(gradient: GradientSpec | None) -> _Steps:
        return _Steps(pipeline, denoiser, gradient, idle_timesteps, start, arguments)

    steps = watch(gradient)
    if gradient is not None and gradient.renoise:
        whole = watch(None)
        with torch.no_grad(), whole.watched():
            call(pipeline, **{**arguments, "output_type": "latent"})
        steps.picture = whole.drawn
    # As a context, set_grad_enabled also restores the grad mode, which the steps change.
    try:
        with torch.set_grad_enabled(gradient is not None and start != "steps"), steps.watched():
            images = call(pipeline, **arguments)[0]
    except Exception as error:
        if steps.clean is None or isinstance(error, UserError | torch.OutOfMemoryError):
            raise
        raise UserError(
            f"learn.gradient.through: x0-jump: {type(pipeline).__name__} cannot skip the rest of its steps "
            f"({first_line(error)}); use last-steps"
        ) from error
    return images, steps.taken


class _Steps:
    """Counts the scheduler's steps of one call, and starts to record gradients at the first one to record."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        denoiser: nn.Module,
        gradient: GradientSpec | None,
        idle_timesteps: int,
        start: Start,
        arguments: dict[str, Any],
    ) -> None:
        self.pipeline, self.denoiser, self.gradient = pipeline, denoiser, gradient
        self.scheduler = scheduler = pipeline.components["scheduler"]
        self.idle_timesteps, self.start = idle_timesteps, start
        self.wanted: int | None = arguments.get("num_inference_steps")
        self.jumps = gradient is not None and gradient.through == "x0-jump"
        self.taken, self.total, self.named = 0, 0, math.inf  # named: the first step that gradient names
        self.clean: Tensor | None = None  # the estimate jumped to, and the denoiser's last output before it
        self.prediction: Any = None
        self.drawn: Tensor | None = None  # the last step's latents
        self.picture: Tensor | None = None  # latents from which the first recorded step starts, with noise
        noise: Sequence[torch.Generator] | None = arguments.get("generator")
        # Flow-matching pipelines do not hand their generators to a stochastic scheduler: it would draw from
        # torch's global state, and a picture would depend on what was drawn before it.
        self.noise = noise if "generator" in inspect.signature(scheduler.step).parameters else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Wrap the scheduler and, to skip it after a jump or record some calls only, the denoiser."""
        with ExitStack() as stack:
            stack.enter_context(wrapped(self.scheduler, "set_timesteps", self._set_timesteps))
            stack.enter_context(wrapped(self.scheduler, "step", self._step))
            if self.jumps or self.start == "conditioning":
                stack.enter_context(wrapped(self.denoiser, "forward", self._forward))
            if self.picture is not None:
                stack.enter_context(noise_replaced(self.pipeline, partial(self._renoised, self.picture)))
            yield

    def _renoised(self, picture: Tensor, noise: Tensor) -> Tensor:
        # The noise may be drawn before the timesteps are set, which are still those of the whole picture.
        self.total = len(self.scheduler.timesteps) - self.idle_timesteps
        return renoised(self.scheduler, picture, noise, int(self._first_named()))

    @property
    def _skips(self) -> bool:
        return self.picture is not None and self.taken < self.named

    def _set_timesteps(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self.taken, self.clean = 0, None
        self.total = len(self.scheduler.timesteps) - self.idle_timesteps
        self.named = self._first_named()
        if self.start == "steps":  # otherwise the graph has begun
            torch.set_grad_enabled(self.first == 0)
        return result

    def _first_named(self) -> float:
        if self.gradient is None:
            return math.inf
        if not self.jumps:
            return max(self.total - self.gradient.steps, 0)
        match self.gradient.step:
            case "last":
                return self.total - 1
            case "random":
                raise ValueError("a random step must be drawn before a picture is")
            case int(step):  # some schedulers take several steps for a denoising step
                return min(-(-(step - 1) * self.total // (self.wanted or self.total)), self.total - 1)

    @property
    def first(self) -> float:
        """The first step that is recorded."""
        return 0 if self.gradient is not None and self.start == "noise" else self.named

    def _step(
        self, original: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if self.clean is not None:
            return _step_output(self.clean, kwargs)
        if self._skips:
            self._count()
            return _step_output(sample, kwargs)
        if self.noise is not None and kwargs.get("generator") is None:
            kwargs["generator"] = self.noise
        if self.jumps and self.taken == self.named:
            self.clean = clean_estimate(self.scheduler, original, model_output, timestep, sample, **kwargs)
            return _step_output(self.clean, kwargs)
        result = original(model_output, timestep, sample, *args, **kwargs)
        self.drawn = result[0] if isinstance(result, tuple) else result.prev_sample
        self._count()
        return result

    def _count(self) -> None:
        self.taken += 1
        if self.taken == self.first:
            torch.set_grad_enabled(True)

    def _forward(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        if self.gradient is not None and self.start == "conditioning":
            # The graph begins before the first step, and pauses until the steps that are recorded.
            torch.set_grad_enabled(self.taken >= self.first)
        if self.prediction is None or (self.clean is None and not self._skips):
            self.prediction = original(*args, **kwargs)
        return self.prediction


def _step_output(clean: Tensor, kwargs: dict[str, Any]) -> Any:
    # Pipelines that read a second value (LCM, SANA-Sprint) expect the clean latents there.
    if kwargs.get("return_dict", True):
        return SimpleNamespace(prev_sample=clean, pred_original_sample=clean, denoised=clean)
    return clean, clean
