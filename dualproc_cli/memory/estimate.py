"""How much memory a run will take, found by running it once on models without weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, LossReport, views
from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator, build_generator
from dualproc_cli.generator.blocks import block_outputs, distances
from dualproc_cli.keep import distance
from dualproc_cli.memory.strategies import Strategy, change_generator, change_vlm
from dualproc_cli.models.load_errors import first_line
from dualproc_cli.models.meta_tensors import Ledger, empty, to_meta
from dualproc_cli.spec import ControlSpec, GeneratorSpec, GradientSpec, LoadedSpec, VlmSpec
from dualproc_cli.vlm import Vlm, build_vlm
from dualproc_cli.vlm.modes import CAUSAL_MODES

OPTIMIZER_COPIES = 2  # AdamW's two moments, float32 like the adapter


@dataclass(frozen=True)
class Estimate:
    """The most memory that a run takes.

    Attributes:
        parts: bytes, by use: ``denoiser``, ``text encoders``, ``decoder`` (and what else the pipeline
            holds), ``vlm``, ``second vlm``, ``adapter``, ``optimizer`` (with the gradients), ``activations``.
    """

    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All parts together, in bytes."""
        return sum(self.parts.values())


def readable(count: int) -> str:
    """Return a number of bytes in MiB, or in GiB from 1 GiB on."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def estimate_learning(
    loaded: LoadedSpec, device: torch.device, strategies: Sequence[Strategy] = ()
) -> Estimate:
    """Estimate the most memory that learning takes on ``device``, with these strategies.

    A step of each phase runs, forward and backward, in the code that learns. Activations are what is held
    besides the weights when the most is held.

    Raises:
        UserError: a configuration cannot be read, or a model's code depends on values that are not computed.
    """
    spec = loaded.spec
    with Ledger().counting() as ledger:
        generator, parts = _generator(ledger, loaded.generator, spec.prompts.all, device, strategies)
        vlm = _vlm(ledger, parts, "vlm", spec.vlm, loaded, device, strategies)
        _attach_adapter(ledger, parts, generator, spec)
        parts["optimizer"] = (1 + OPTIMIZER_COPIES) * parts["adapter"]
        weights = ledger.live
        with _explained(f"{spec.generator.model} with {spec.vlm.model}"):
            _learn_step(loaded, generator, vlm, ledger, strategies)
    # Gradients are made in the step, but they are counted with the optimizer.
    parts["activations"] = max(ledger.peak - weights - parts["adapter"], 0)
    if spec.steered and "weights" in spec.where:
        parts["adapter"] *= 2  # as it is, and as it was taught
    return _adjusted(_without_other_devices(parts, {"vlm": spec.vlm}, device), strategies)


def estimate_evaluation(
    loaded: LoadedSpec, batch: int, device: torch.device, strategies: Sequence[Strategy] = ()
) -> Estimate:
    """Estimate the most memory that evaluating takes: drawing ``batch`` pictures and asking every VLM.

    One model is in memory at a time: the estimate is that of the largest, with the learned adapter for the
    generator. The models of measures are not counted. Raises the same as `estimate_learning`.
    """
    spec = loaded.spec
    with Ledger().counting() as ledger:
        generator, parts = _generator(ledger, loaded.generator, spec.prompts.all, device, strategies)
        _attach_adapter(ledger, parts, generator, spec)
        weights = ledger.live
        with _explained(spec.generator.model):
            images = _real(_draw(generator, spec.prompts.train[0], batch, ledger))
    parts["activations"] = ledger.peak - weights
    found = [_adjusted(parts, strategies)]
    for name, one in {"vlm": spec.vlm, "second vlm": spec.evaluate.vlm}.items():
        if one is not None:
            found.append(_asking(name, one, loaded, images, device, strategies))
    return max(found, key=lambda estimate: estimate.total)


def _asking(
    name: str,
    spec: VlmSpec,
    loaded: LoadedSpec,
    images: Tensor,
    device: torch.device,
    strategies: Sequence[Strategy],
) -> Estimate:
    """Estimate what a VLM alone takes to be asked about images [B, 3, H, W]."""
    parts: dict[str, int] = {}
    with Ledger().counting() as ledger:
        vlm = _vlm(ledger, parts, name, spec, loaded, device, strategies)
        with _explained(spec.model), torch.no_grad():
            _ask(loaded, vlm, images)
    parts["activations"] = ledger.peak - parts[name]
    return _adjusted(_without_other_devices(parts, {name: spec}, device), strategies)


def estimate_drawing(
    spec: GeneratorSpec,
    prompts: Sequence[str],
    batch: int,
    device: torch.device,
    strategies: Sequence[Strategy] = (),
) -> Estimate:
    """Estimate the most memory that drawing ``batch`` pictures at once takes.

    Adapters are small and not counted. Raises the same as `estimate_learning`.
    """
    with Ledger().counting() as ledger:
        generator, parts = _generator(ledger, spec, prompts, device, strategies)
        weights = ledger.live
        with _explained(spec.model):
            _draw(generator, prompts[0], batch, ledger)
    parts["activations"] = ledger.peak - weights
    return _adjusted(parts, strategies)


def _generator(
    ledger: Ledger,
    spec: GeneratorSpec,
    prompts: Sequence[str],
    device: torch.device,
    strategies: Sequence[Strategy],
) -> tuple[Generator, dict[str, int]]:
    """Return the generator without weights, with ``strategies`` applied, and the bytes of its parts."""
    generator = build_generator(change_generator(spec, strategies), device, "none", prompts)
    for strategy in strategies:
        strategy.simulate(generator)
    to_meta(generator.denoiser, torch.float32)  # the adapters that it carries: the rest already has no data
    parts = {"denoiser": 0, "text encoders": 0, "decoder": 0}
    for name, module in generator.pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            parts[_part(generator, name)] += ledger.bytes_of(module)
    return generator, parts


def _vlm(
    ledger: Ledger,
    parts: dict[str, int],
    name: str,
    spec: VlmSpec,
    loaded: LoadedSpec,
    device: torch.device,
    strategies: Sequence[Strategy],
) -> Vlm:
    """Return a VLM without weights, and add its bytes to ``parts``."""
    vlm = build_vlm(change_vlm(spec, strategies), device, "none", loaded.spec.question_texts)
    parts[name] = ledger.live - sum(parts.values())
    return vlm


def _without_other_devices(
    parts: dict[str, int], vlms: Mapping[str, VlmSpec], device: torch.device
) -> dict[str, int]:
    """Return ``parts`` without the VLMs that the spec puts on another device."""
    elsewhere = {name for name, spec in vlms.items() if spec.device and torch.device(spec.device) != device}
    return {name: 0 if name in elsewhere else size for name, size in parts.items()}


def _attach_adapter(ledger: Ledger, parts: dict[str, int], generator: Generator, spec: ControlSpec) -> None:
    """Attach the adapter without weights, and add its bytes to ``parts``."""
    generator.attach(spec.learn.adapter, spec.learn.seed)
    to_meta(generator.denoiser, torch.float32)  # the adapter only: the rest already has no data
    parts["adapter"] = ledger.live - sum(parts.values())


def _adjusted(parts: dict[str, int], strategies: Sequence[Strategy]) -> Estimate:
    for strategy in strategies:
        parts = strategy.parts(parts)
    return Estimate(parts)


@contextmanager
def _explained(models: str) -> Iterator[None]:
    """Turn any error of a model's code into one line; tensors without data may cause many."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"memory of {models}: cannot be predicted ({first_line(error)}); set memory to a list of "
            "strategies"
        ) from error


def _draw(generator: Generator, prompt: str, batch: int, ledger: Ledger) -> Tensor:
    """Draw without gradient. The text encoders run before the peak is measured: prompts are encoded once."""
    generator.render([prompt], [0])
    ledger.forget_peak()
    return generator.render([prompt] * batch, list(range(batch)))


def _learn_step(
    loaded: LoadedSpec, generator: Generator, vlm: Vlm, ledger: Ledger, strategies: Sequence[Strategy]
) -> None:
    """Take a step of each phase of learning; the peak is that of the largest."""
    spec, learn = loaded.spec, loaded.spec.learn
    one = learn.gradient.at(1)  # a jump takes the same memory from every step
    generator.render(spec.prompts.train[:1], [0])  # encodes the prompt, which is not part of a step
    ledger.forget_peak()
    if spec.steered:
        # The noise comes before every step. What else is steered is recorded where the weights are.
        whole = "noise" in spec.steered and learn.gradient.through == "last-steps"
        gradient = GradientSpec(steps=spec.generator.steps) if whole else one
        _ask_about(loaded, generator, vlm, gradient, strategies)
        _teach(loaded, generator, one, strategies)
    if "weights" in spec.where:
        _ask_about(loaded, generator, vlm, one, strategies)


def _ask_about(
    loaded: LoadedSpec,
    generator: Generator,
    vlm: Vlm,
    gradient: GradientSpec,
    strategies: Sequence[Strategy],
) -> None:
    """Draw pictures, ask about them, and go back to what they were drawn with."""
    learn = loaded.spec.learn
    batch = generator.at_once(learn.batch_size, learn.micro_batch)
    images = _record(loaded, generator, batch, gradient, strategies)
    pictures = _real(images).repeat(learn.jitter.views, 1, 1, 1).requires_grad_()
    report = _ask(loaded, vlm, pictures)
    losses = [images]
    if learn.keep.matters and "weights" in loaded.spec.where:
        with generator.without_adapter():
            base = generator.render([loaded.spec.prompts.train[0]] * len(images), list(range(len(images))))
        losses.append(distance(images, base, learn.keep))
    report.loss.backward()
    torch.autograd.backward(losses, [empty(loss) for loss in losses])


def _teach(
    loaded: LoadedSpec, generator: Generator, gradient: GradientSpec, strategies: Sequence[Strategy]
) -> None:
    """Compare what the adapter draws, and the blocks' outputs on the way, with what was steered."""
    batch = generator.at_once(loaded.spec.learn.teach.batch_size, loaded.spec.learn.micro_batch)
    decode = "colors" in loaded.spec.steered  # which latents do not know
    with block_outputs(generator.denoiser) as learned:
        picture = _record(loaded, generator, batch, gradient, strategies, decode)
    steered = None if gradient.through == "last-steps" else gradient
    with torch.no_grad(), block_outputs(generator.denoiser, list(learned.calls)) as taught:
        wanted = _drawn(loaded, generator, batch, steered, decode)
    left = distances([picture, *learned.tensors], [wanted, *taught.tensors])
    torch.stack(left).sum().backward()


def _record(
    loaded: LoadedSpec,
    generator: Generator,
    batch: int,
    gradient: GradientSpec,
    strategies: Sequence[Strategy],
    decode: bool = True,
) -> Tensor:
    """Return pictures with their graph, or latents; gradients of the step before are dropped."""
    for parameter in generator.adapter_parameters():
        parameter.grad = None
    with ExitStack() as stack:
        for strategy in strategies:
            stack.enter_context(strategy.saving())
        return _drawn(loaded, generator, batch, gradient, decode)


def _drawn(
    loaded: LoadedSpec, generator: Generator, batch: int, gradient: GradientSpec | None, decode: bool
) -> Tensor:
    """Return pictures, or latents."""
    draw = generator.render if decode else generator.latents
    return draw([loaded.spec.prompts.train[0]] * batch, list(range(batch)), gradient=gradient)


def _real(images: Tensor) -> Tensor:
    """Return real pictures of the shape of ``images``, since image processors write into real tensors.

    They are not uniform: Idefics3 drops a picture that is normalised to zeros, as if it were padding.
    """
    return torch.linspace(0.2, 0.8, images.shape[-1]).expand(images.shape).contiguous()


def _ask(loaded: LoadedSpec, vlm: Vlm, pictures: Tensor) -> LossReport:
    """Return the loss in the first forward mode that works; without values, modes cannot be compared."""
    failure: Exception | None = None
    for mode in CAUSAL_MODES:
        found = views(loaded, vlm, *pictures.shape[-2:])
        seen = [replace(view, scorer=view.scorer.in_mode(mode)) for view in found]
        try:
            return CompositeLoss(seen, loaded.spec.learn)(pictures)
        except Exception as error:
            failure = failure or error
    raise failure or ValueError("no forward mode works")


def _part(generator: Generator, name: str) -> str:
    if name == generator.component:
        return "denoiser"
    return "text encoders" if name.startswith("text_encoder") else "decoder"
