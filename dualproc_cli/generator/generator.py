"""A frozen text-to-image pipeline that renders differentiably and carries adapters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator import adapter, self_test
from dualproc_cli.generator.adapter_file import AdapterFile, cpu_copies
from dualproc_cli.generator.adapter_types import ADAPTER_TYPES
from dualproc_cli.generator.arguments import Arguments
from dualproc_cli.generator.compiling import uncompiled
from dualproc_cli.generator.conventions import Conventions
from dualproc_cli.generator.differentiate import Start, run_pipeline
from dualproc_cli.generator.steered_call import SteeredCall, text_encoders
from dualproc_cli.generator.steering import Steering
from dualproc_cli.generator.workarounds import Workaround
from dualproc_cli.models.load_errors import first_line
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec

LEARNED = "learned"  # the name of the adapter that learns, inside peft


class Generator:
    """A frozen text-to-image pipeline of diffusers, with adapters on its denoiser.

    Attributes:
        pipeline: the diffusers pipeline.
        component: the name of its denoiser, ``transformer`` or ``unet``.
        denoiser: the denoiser itself, which alone carries adapters.
        spec: the generator's part of the control spec.
        device: the device on which it draws.
        revision: the commit that a hub model was resolved to, or the digest of the miniature's weights; None
            for a local folder.
        workarounds: the changes that the pipeline needed.
        conventions: how the pipeline returns its pictures.
        saving: makes the context in which tensors are saved for the backward pass.
        strategies: names of the memory strategies that were applied, for error messages.
        steering: what is learned of the steering of its inputs; None without any.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        component: str,
        spec: GeneratorSpec,
        device: torch.device,
        revision: str | None,
        workarounds: tuple[Workaround, ...],
        conventions: Conventions | None = None,
    ) -> None:
        """Wrap a loaded pipeline; without ``conventions``, the self-test finds them by drawing."""
        self.pipeline, self.component, self.spec = pipeline, component, spec
        self.device, self.revision, self.workarounds = device, revision, workarounds
        self.denoiser: nn.Module = getattr(pipeline, component)
        self._arguments = Arguments(pipeline, spec)
        self._loaded = 0
        self._learned = AdapterSpec()
        self.saving: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.strategies: list[str] = []
        self.steering: Steering | None = None
        self._steers = False
        self._recoloring = torch.zeros(0)
        self._seen: list[SteeredCall] = []  # the calls of the last steered picture
        self.conventions = conventions or Conventions(width=spec.width, height=spec.height)
        if conventions is None:
            self.conventions = self_test.find_conventions(self)

    def render(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        gradient: GradientSpec | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Draw one picture per prompt and seed.

        Args:
            prompts: B prompts.
            seeds: B seeds, one per picture. Each picture depends on its own prompt and seed only.
            gradient: through which denoising steps to record an autograd graph; None records nothing.
            steps: denoising steps; None takes the spec's.

        Returns:
            Images [B, 3, H, W], float32, in [0, 1], on the generator's device.

        Raises:
            UserError: ``gradient`` is an x0-jump and the scheduler gives no clean estimate.
        """
        images, _ = self.call(prompts, seeds, gradient=gradient, steps=steps or self.spec.steps)
        pictures = self.conventions.picture(images)
        if not self._steers:
            return pictures
        with torch.set_grad_enabled(gradient is not None):
            return self.recolored(pictures)

    def latents(
        self, prompts: Sequence[str], seeds: Sequence[int], *, gradient: GradientSpec | None = None
    ) -> Tensor:
        """Return what the decoder of `render` would decode, [B, ...] in the pipeline's own layout, float32.

        With an x0-jump in ``gradient``, these are the clean latents that it predicts.
        """
        found, _ = self.call(prompts, seeds, gradient=gradient, steps=self.spec.steps, latents_only=True)
        return found.float()

    def call(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        gradient: GradientSpec | None = None,
        steps: int,
        width: int | None = None,
        height: int | None = None,
        output_type: str = "pt",
        latents_only: bool = False,
    ) -> tuple[Any, int]:
        """Call the pipeline; return its raw pictures and the number of scheduler steps (see `render`).

        With ``latents_only``, return what it would decode instead of the pictures.

        Raises:
            ValueError: the numbers of prompts and seeds differ.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds; expected one seed per prompt")
        options: dict[str, Any] = {
            "gradient": gradient,
            "steps": steps,
            "width": width or self.spec.width,
            "height": height or self.spec.height,
            "output_type": output_type,
            "latents_only": latents_only,
        }
        self._seen = []
        if self.conventions.batches:
            return self._call(prompts, seeds, **options)
        alone = [self._call([prompt], [seed], **options) for prompt, seed in zip(prompts, seeds, strict=True)]
        return (torch.cat([images for images, _ in alone]) if len(alone) > 1 else alone[0][0]), alone[0][1]

    def _call(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        gradient: GradientSpec | None,
        latents_only: bool,
        **options: Any,
    ) -> tuple[Any, int]:
        arguments = self._arguments.make(prompts, seeds, as_list=self.conventions.batches, **options)
        steering = self.steering if self._steers else None
        inputs = SteeredCall(self.pipeline, len(prompts), steering, records=gradient is not None)
        # Some draw from torch's global state (DPMSolverSDE) or seed it (GLM-Image). It is seeded with the
        # first picture's seed for the call; afterwards the old state is restored.
        forked = torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])
        saving = self.saving() if gradient else nullcontext()
        with forked, saving, inputs.watched() if steering else nullcontext():
            torch.manual_seed(seeds[0])
            drawn = run_pipeline(
                self.pipeline,
                self.denoiser,
                arguments,
                gradient,
                self.conventions.idle_timesteps,
                _start(steering),
                latents_only,
            )
        if steering:
            self._seen.append(inputs)
        return drawn

    def recolored(self, images: Tensor) -> Tensor:
        """Return the last steered pictures [B, 3, H, W] in the colours that steering gives them."""
        if self.steering is None or self.steering.colors is None:
            return images
        prompts = [self.steering.about_prompts(call.embeddings, call.count) for call in self._seen]
        found = self.steering.colors(images, torch.cat(prompts))
        self._recoloring = (found - images).abs().mean((1, 2, 3))
        return found

    def add_steering(self, where: Sequence[str], seed: int) -> None:
        """Add steering of ``where``, of noise, conditioning and colors, which has no effect yet.

        Raises:
            UserError: an input of this pipeline cannot be steered, or no gradient reaches it.
        """
        with uncompiled(), SteeredCall(self.pipeline, 1).watched() as seen:
            steps = min(self.spec.steps, self_test.STEPS)
            self.call([self_test.PROMPT], [0], steps=steps, latents_only=True)
        inputs = self_test.check_inputs(self, seen, where)
        self.steering = Steering(inputs, tuple(where), seed).to(self.device)
        self_test.check_steering(self, self.steering)

    @contextmanager
    def steered(self) -> Iterator[None]:
        """Steer what is drawn inside the block, if steering was added."""
        self._steers = self.steering is not None
        try:
            yield
        finally:
            self._steers = False

    def steering_state(self) -> dict[str, Tensor]:
        """Return a copy of the steering's weights on the CPU, for a checkpoint; empty without steering."""
        return {} if self.steering is None else cpu_copies(dict(self.steering.named_parameters()))

    def load_steering_state(self, state: dict[str, Tensor]) -> None:
        """Restore the weights from `steering_state`, in place.

        Raises:
            UserError: the weights are those of another steering.
        """
        tensors = dict(self.steering.named_parameters()) if self.steering is not None else {}
        _fill(tensors, state, "checkpoint", "steering")

    def noise_nats(self) -> Tensor:
        """Return what steering the noise of the last steered pictures cost, [B] in nats, with its graph."""
        return torch.cat([call.nats for call in self._seen if call.nats is not None])

    def recoloring(self) -> Tensor:
        """Return by how much the last pictures were recoloured: mean absolute change [B], with its graph."""
        return self._recoloring

    def release_text_encoders(self, prompts: Sequence[str]) -> None:
        """Encode ``prompts``, keep their embeddings, and move the text encoders to main memory.

        Other prompts are encoded there later, which takes longer and gives the same embeddings.
        """
        size = self.conventions
        with uncompiled():
            for prompt in prompts:
                self.call([prompt], [0], steps=1, width=size.width, height=size.height)
        for module in text_encoders(self.pipeline).values():
            module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def add_adapter(self, spec: AdapterSpec, seed: int) -> None:
        """Add the adapter that learns, and check that gradients reach it.

        It has no effect until it is trained. Its update is multiplied by ``spec.scale``, in the file too, so
        that plain diffusers draws the same pictures at adapter weight 1.

        Raises:
            UserError: ``spec.target_modules`` matches no layer, or a weight that affects the picture gets no
                gradient.
        """
        self.attach(spec, seed)
        try:
            self_test.check_gradients(self, adapter.tensors(self.denoiser, LEARNED))
        except RuntimeError as error:
            if not self.strategies or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"memory: {type(self.pipeline).__name__} cannot draw with {', '.join(self.strategies)} "
                f"({first_line(error)}); leave one of them out"
            ) from error

    def attach(self, spec: AdapterSpec, seed: int) -> None:
        """Add the adapter that learns as `add_adapter` does, without checking its gradients."""
        targets = (
            adapter.auto_targets(self.denoiser) if spec.target_modules == "auto" else spec.target_modules
        )
        self._learned = spec
        config = ADAPTER_TYPES[spec.type].config(spec.rank, spec.alpha, targets)
        adapter.inject(self.denoiser, LEARNED, config, seed)
        for parameter in self.adapter_parameters():
            parameter.requires_grad_(True)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the trainable weights, float32."""
        return list(adapter.tensors(self.denoiser, LEARNED).values())

    def adapter_state(self) -> dict[str, Tensor]:
        """Return a copy of the learning adapter's weights on the CPU, for a checkpoint."""
        return cpu_copies(adapter.tensors(self.denoiser, LEARNED))

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Restore the weights from `adapter_state`, in place, so that optimisers still refer to them.

        Raises:
            UserError: the weights are those of another adapter.
        """
        _fill(adapter.tensors(self.denoiser, LEARNED), state, "checkpoint", "adapter")

    def without_adapter(self) -> AbstractContextManager[None]:
        """Switch the adapters off inside the block, where pictures are exactly the base generator's."""
        return adapter.suspended(self.denoiser)

    def call_arguments(self) -> dict[str, Any]:
        """Return the arguments besides prompt and seed with which plain diffusers draws the same pictures."""
        return self._arguments.beside_prompt_and_seed(self.spec)

    def save_adapter(self, folder: Path) -> Path:
        """Write the learned adapter to ``folder`` for plain diffusers, and return the file's path."""
        spec, state = self._learned, self.adapter_state()
        return AdapterFile(self.component, spec.type, spec.rank, spec.alpha, state).write(folder)

    def load_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Load saved adapters, each multiplied by its own scale, in addition to those loaded before.

        All are checked before the first is loaded. An adapter at scale 0 leaves the pictures as they were.

        Raises:
            UserError: a file is missing or damaged, or was made for another generator.
        """
        files = [(folder, AdapterFile.read(folder), scale) for folder, scale in adapters]
        for folder, file, _ in files:
            self._check_fits(file, folder)
        for folder, file, scale in files:
            if scale == 0:
                continue
            name = f"loaded-{self._loaded}"
            adapter.inject(self.denoiser, name, file.config, seed=0)
            _fill(adapter.tensors(self.denoiser, name), file.tensors, str(folder), "adapter")
            for layer in adapter.layers(self.denoiser):
                layer.set_scale(name, scale)
            self._loaded += 1

    def _check_fits(self, file: AdapterFile, folder: Path) -> None:
        name = type(self.pipeline).__name__
        if file.component != self.component:
            raise UserError(
                f"{folder}: the adapter was made for another generator: it adapts a {file.component}, and "
                f"{name} ({self.spec.model}) has a {self.component}; use the model named in its bundle"
            )
        modules = dict(self.denoiser.named_modules())
        for target, features in file.layers.items():
            module = modules.get(target)
            if module is None or _features(module) != features:
                found = "no such layer" if module is None else "a layer of {} x {}".format(*_features(module))
                raise UserError(
                    f"{folder}: the adapter was made for another generator: it adapts {target} with "
                    f"{features[0]} x {features[1]}, and {name} ({self.spec.model}) has {found}; use the "
                    "model named in its bundle"
                )


def _fill(tensors: dict[str, nn.Parameter], state: dict[str, Tensor], source: str, what: str) -> None:
    """Copy ``state`` into ``tensors``, which must have the same names and shapes."""
    odd = sorted(tensors.keys() ^ state.keys()) or [
        key for key in tensors if tensors[key].shape != state[key].shape
    ]
    if odd:
        raise UserError(
            f"{source}: its weights are those of another {what} ({odd[0]} and {len(odd) - 1} more)"
        )
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(state[key])


def _start(steering: Steering | None) -> Start:
    """Return from where on a call is recorded so that gradients reach what is steered."""
    if steering is None or (steering.noise is None and not len(steering.offsets)):
        return "steps"
    return "conditioning" if steering.noise is None else "noise"


def _features(layer: Any) -> tuple[int, int]:
    if hasattr(layer, "in_features"):  # linear layers, quantised ones, and those that carry adapters
        return layer.in_features, layer.out_features
    return getattr(layer, "in_channels", 0), getattr(layer, "out_channels", 0)
