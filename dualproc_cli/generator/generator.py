"""A frozen text-to-image pipeline that renders differentiably and carries adapters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator import adapter, self_test
from dualproc_cli.generator.adapter_file import BASE_KEYS, AdapterFile
from dualproc_cli.generator.adapter_types import ADAPTER_TYPES
from dualproc_cli.generator.arguments import Arguments
from dualproc_cli.generator.conventions import Conventions
from dualproc_cli.generator.differentiate import run_pipeline
from dualproc_cli.generator.steered_call import SteeredCall, SteeredPictures
from dualproc_cli.generator.steering import Steering
from dualproc_cli.generator.tensor_file import cpu_copies
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
        micro_batch: how many of the pictures of a step of learning are drawn at once, from their number.
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
        self._loaded: dict[str, float] = {}  # the scale of each adapter
        self._carried: list[str] = []
        self._learned = AdapterSpec()
        self.saving: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.micro_batch: Callable[[int], int] = int
        self.strategies: list[str] = []
        self.steering: Steering | None = None
        self._pictures: SteeredPictures | None = None  # inside `steered`
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
        return self._pictures.recolored(pictures) if self._pictures else pictures

    def latents(
        self, prompts: Sequence[str], seeds: Sequence[int], *, gradient: GradientSpec | None = None
    ) -> Tensor:
        """Return what the decoder of `render` would decode, [B, ...] in the pipeline's own layout, float32.

        A pipeline without a decoder gives its pictures. With an x0-jump in ``gradient``, these are the clean
        latents that it predicts.
        """
        parts = self.pipeline.components.values()
        decodes = any(isinstance(part, nn.Module) and hasattr(part, "decode") for part in parts)
        output_type = "latent" if decodes else "pt"  # pipelines of pixels have no latents
        found, _ = self.call(
            prompts, seeds, gradient=gradient, steps=self.spec.steps, output_type=output_type
        )
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
    ) -> tuple[Any, int]:
        """Call the pipeline; return its raw pictures and the number of scheduler steps (see `render`).

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
        }
        if self._pictures and self.steering:
            self._pictures.calls.clear()
            prompts = self.steering.reworded(prompts)
        if self.conventions.batches:
            return self._call(prompts, seeds, **options)
        alone = [self._call([prompt], [seed], **options) for prompt, seed in zip(prompts, seeds, strict=True)]
        return (torch.cat([images for images, _ in alone]) if len(alone) > 1 else alone[0][0]), alone[0][1]

    def _call(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        gradient: GradientSpec | None,
        **options: Any,
    ) -> tuple[Any, int]:
        arguments = self._arguments.make(prompts, seeds, as_list=self.conventions.batches, **options)
        steering = self.steering if self._pictures else None
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
                steering.start if steering else "steps",
            )
        if self._pictures:
            self._pictures.calls.append(inputs)
        return drawn

    def add_steering(self, where: Sequence[str], seed: int) -> None:
        """Add steering of ``where``, of noise, conditioning and colors, which has no effect yet.

        Raises:
            UserError: an input of this pipeline cannot be steered, or no gradient reaches it.
        """
        inputs = self_test.probe_inputs(self, where)
        self.steering = Steering(inputs, tuple(where), seed).to(self.device)
        self_test.check_steering(self, self.steering)

    def at_once(self, count: int, wanted: int | Literal["auto"]) -> int:
        """Return how many of the ``count`` pictures of a step are drawn at once, by ``learn.micro_batch``."""
        return min(count, self.micro_batch(count) if wanted == "auto" else wanted)

    @property
    def words(self) -> dict[str, str]:
        """What steering replaces prompts by."""
        return self.steering.words if self.steering else {}

    @contextmanager
    def steered(self) -> Iterator[SteeredPictures]:
        """Steer what is drawn inside the block, and yield what is known of the last pictures.

        Raises:
            ValueError: no steering was added.
        """
        if self.steering is None:
            raise ValueError("no steering was added to the generator")
        self._pictures = SteeredPictures()
        try:
            yield self._pictures
        finally:
            self._pictures = None

    def steering_state(self) -> dict[str, Tensor]:
        """Return a copy of the steering's weights on the CPU, for a checkpoint; empty without steering."""
        return {} if self.steering is None else cpu_copies(dict(self.steering.named_parameters()))

    def load_steering_state(self, state: dict[str, Tensor]) -> None:
        """Restore the weights from `steering_state`, in place.

        Raises:
            UserError: the weights are those of another steering.
        """
        tensors = dict(self.steering.named_parameters()) if self.steering is not None else {}
        adapter.fill(tensors, state, "checkpoint", "steering")

    def add_adapter(self, spec: AdapterSpec, seed: int) -> None:
        """Add the adapter that learns, and check that gradients reach it.

        It has no effect until it is trained. Its update is multiplied by ``spec.scale``, which `save_adapter`
        bakes into its weights.

        Raises:
            UserError: ``spec.target_modules`` matches no layer, or a weight that affects the picture gets no
                gradient.
        """
        self.attach(spec, seed)
        try:
            self_test.check_gradients(self, self._learning())
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
        config = ADAPTER_TYPES[spec.type].config(spec.rank, spec.alpha, targets, spec.init)
        adapter.inject(self.denoiser, LEARNED, config, seed)
        for parameter in self.adapter_parameters():
            parameter.requires_grad_(True)

    def start_from(self, file: AdapterFile) -> None:
        """Make the adapter that learns the same as that of ``file``.

        Raises:
            UserError: they have other layers, or another rank.
        """
        spec = self._learned
        self.load_adapter_state(ADAPTER_TYPES[spec.type].scaled(file.tensors, 1 / spec.scale))

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the trainable weights, float32."""
        return list(self._learning().values())

    def _learning(self) -> dict[str, nn.Parameter]:
        return adapter.tensors(self.denoiser, LEARNED)

    def adapter_state(self) -> dict[str, Tensor]:
        """Return a copy of the learning adapter's weights on the CPU, for a checkpoint."""
        return cpu_copies(self._learning())

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Restore the weights from `adapter_state`, in place, so that optimisers still refer to them.

        Raises:
            UserError: the weights are those of another adapter.
        """
        adapter.fill(self._learning(), state, "checkpoint", "adapter")

    @contextmanager
    def with_adapter_state(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Give the learning adapter other weights inside the block, in place, where no gradient is recorded.

        No gradient can pass through what was drawn before the block.
        """
        now = {name: tensor.detach().clone() for name, tensor in self._learning().items()}
        try:
            self.load_adapter_state(state)
            with torch.no_grad():
                yield
        finally:
            self.load_adapter_state(now)

    def at_strength(self, factor: float) -> AbstractContextManager[None]:
        """Multiply the adapters that `load_adapters` loaded inside the block: at 0 they have no effect.

        Those that it carries (`carry`) stay as they are.
        """
        return adapter.scaled(self.denoiser, self._loaded, factor)

    def without_adapter(self) -> AbstractContextManager[None]:
        """Switch the adapters off inside the block, where pictures are exactly the base generator's.

        Those that it carries (`carry`) are a part of the base generator, and stay on.
        """
        return adapter.suspended(self.denoiser, self._carried)

    def carry(self, adapters: Sequence[tuple[AdapterFile, float]]) -> None:
        """Make adapters, each at its own scale, a part of the base generator. They must fit it."""
        for file, scale in adapters:
            name = f"carried-{len(self._carried)}"
            self._attach(name, file, scale, "generator.adapters")
            self._carried.append(name)

    def _attach(self, name: str, file: AdapterFile, scale: float, source: str) -> None:
        adapter.inject(self.denoiser, name, file.config, seed=0)
        adapter.fill(adapter.tensors(self.denoiser, name), file.tensors, source, "adapter")
        for layer in adapter.layers(self.denoiser):
            layer.set_scale(name, scale)

    def call_arguments(self) -> dict[str, Any]:
        """Return the arguments besides prompt and seed with which plain diffusers draws the same pictures."""
        return self._arguments.beside_prompt_and_seed(self.spec)

    def save_adapter(self, folder: Path) -> Path:
        """Write the learned adapter to ``folder`` for plain diffusers, and return the file's path.

        Its scale is baked into its weights: at adapter weight 1 it draws the learned pictures.
        """
        spec = self._learned
        tensors = ADAPTER_TYPES[spec.type].scaled(self.adapter_state(), spec.scale)
        known = {"base_pipeline": type(self.pipeline).__name__}
        for key in BASE_KEYS[1:]:
            value = getattr(self.denoiser.config, key.removeprefix("base_"), None)
            if isinstance(value, int):  # a flag too
                known[key] = str(value)
        return AdapterFile(self.component, spec.type, spec.rank, tensors, known).write(folder)

    def load_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Load saved adapters, each multiplied by its own scale, in addition to those loaded before.

        All are checked before the first is loaded. An adapter at scale 0 leaves the pictures as they were.

        Raises:
            UserError: a file is missing or damaged, or was made for another generator.
        """
        files = [(folder, AdapterFile.read(folder), scale) for folder, scale in adapters]
        for folder, file, _ in files:
            if why := adapter.misfit(self.component, self.denoiser, file):
                raise UserError(
                    f"{folder}: the adapter was made for another generator than {self.spec.model}: {why}; "
                    "use the model named in its bundle"
                )
        for folder, file, scale in files:
            if scale == 0:
                continue
            name = f"loaded-{len(self._loaded)}"
            self._attach(name, file, scale, str(folder))
            self._loaded[name] = scale
