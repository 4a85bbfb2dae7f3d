"""How much memory a spec will take, found by learning one step of it on hollow models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from dualproc_cli.compiler import CompositeLoss, LossReport, views
from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator
from dualproc_cli.memory.meta_tensors import Ledger, empty, offloaded, to_meta
from dualproc_cli.memory.skeleton import meta_generator, meta_vlm
from dualproc_cli.memory.strategies import quantized, with_rungs
from dualproc_cli.spec import GeneratorSpec, LoadedSpec
from dualproc_cli.vlm import Vlm
from dualproc_cli.vlm.modes import CAUSAL_MODES

GIB = 2**30
OPTIMIZER_COPIES = 2  # AdamW's moments, float32 as the adapter


@dataclass(frozen=True)
class Estimate:
    """Bytes that a run takes at most, by what they are for.

    Attributes:
        parts: ``denoiser``, ``text encoders``, ``decoder`` (and what else the pipeline holds), ``vlm``,
            ``adapter``, ``optimizer`` (with the gradients), ``activations``.
    """

    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def predict(loaded: LoadedSpec, device: torch.device, rungs: Sequence[str] = ()) -> Estimate:
    """The most memory that learning takes on ``device``, with ``rungs`` of the ladder in force.

    One step is taken, forward and backward, by the very code that learns, on models without weights.
    Activations are what lives beside the weights when most does.

    Raises:
        UserError: a configuration cannot be read, or a model's path depends on values that are not computed.
    """
    loaded = with_rungs(loaded, rungs)
    spec = loaded.spec
    texts = [text for question in spec.questions for text in question.texts]
    prompts = [*spec.prompts.train, *spec.prompts.held_out]
    with Ledger().counting() as ledger:
        generator, parts = _generator(ledger, spec.generator, device, prompts, rungs)
        vlm = meta_vlm(spec.vlm, pick_dtype(spec.vlm.dtype, device), texts)
        parts["vlm"] = ledger.live - sum(parts.values())
        generator.attach(spec.learn.adapter, spec.learn.seed)
        to_meta(generator.denoiser, torch.float32)  # the adapter: the rest is hollow already
        parts["adapter"] = ledger.live - sum(parts.values())
        parts["optimizer"] = (1 + OPTIMIZER_COPIES) * parts["adapter"]
        weights = ledger.live
        with _explained(f"{spec.generator.model} with {spec.vlm.model}"):
            _step(loaded, generator, vlm, ledger, "offload-activations" in rungs)
    # Gradients are born in the step: they are counted with the optimiser.
    parts["activations"] = max(ledger.peak - weights - parts["adapter"], 0)
    if "free-text-encoders" in rungs:
        parts["text encoders"] = 0
    if "two-devices" in rungs:
        parts["vlm"] = 0
    return Estimate(parts)


def predict_drawing(
    spec: GeneratorSpec, prompts: Sequence[str], batch: int, device: torch.device, rungs: Sequence[str] = ()
) -> Estimate:
    """The most memory that drawing ``batch`` pictures at once takes, found as by `predict`.

    Adapters are small: they are not counted.

    Raises:
        UserError: as `predict` does.
    """
    with Ledger().counting() as ledger:
        generator, parts = _generator(ledger, quantized(spec, rungs), device, prompts, rungs)
        weights = ledger.live
        with _explained(spec.model):
            generator.render([prompts[0]] * batch, list(range(batch)))
    parts["activations"] = ledger.peak - weights
    if "free-text-encoders" in rungs:
        parts["text encoders"] = 0
    return Estimate(parts)


def _generator(
    ledger: Ledger, spec: GeneratorSpec, device: torch.device, prompts: Sequence[str], rungs: Sequence[str]
) -> tuple[Generator, dict[str, int]]:
    """The generator without weights, as thrifty as it will be loaded, and the bytes of its parts."""
    generator = meta_generator(spec, pick_dtype(spec.dtype, device), prompts)
    generator.economize([rung for rung in rungs if rung != "offload-activations"])
    parts = {"denoiser": 0, "text encoders": 0, "decoder": 0}
    for name, module in generator.pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            parts[_part(generator, name)] += ledger.bytes_of(module)
    return generator, parts


@contextmanager
def _explained(models: str) -> Iterator[None]:
    """Any model's code may ask for what hollow tensors cannot give: one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"memory of {models}: cannot be predicted ({reason}); set generator.memory to a list of rungs "
            "yourself"
        ) from error


def _step(loaded: LoadedSpec, generator: Generator, vlm: Vlm, ledger: Ledger, offload: bool) -> None:
    learn, size = loaded.spec.learn, (loaded.spec.generator.height, loaded.spec.generator.width)
    prompts = [loaded.spec.prompts.train[0]] * learn.batch_size
    seeds = list(range(learn.batch_size))
    generator.render(prompts[:1], seeds[:1])  # encodes the prompt, which is never part of a step
    ledger.forget_peak()
    with offloaded() if offload else nullcontext():
        images = generator.render(prompts, seeds, gradient=learn.gradient)
    # Image processors write pictures into tensors of their own: from here on they are real.
    pictures = torch.full(images.shape, 0.5, requires_grad=True)
    report = _ask(loaded, vlm, size, pictures)
    if learn.keep.matters:
        with generator.without_adapter():
            generator.render(prompts, seeds)
    report.loss.backward()
    images.backward(empty(images))


def _ask(loaded: LoadedSpec, vlm: Vlm, size: tuple[int, int], pictures: torch.Tensor) -> LossReport:
    """The loss in the first forward mode that works: without values, they cannot be compared."""
    failure: Exception | None = None
    for mode in CAUSAL_MODES:
        seen = [replace(view, scorer=view.scorer.in_mode(mode)) for view in views(loaded, vlm, *size)]
        try:
            return CompositeLoss(seen, loaded.spec.learn)(pictures)
        except Exception as error:
            failure = failure or error
    raise failure or ValueError("no forward mode works")


def _part(generator: Generator, name: str) -> str:
    if name == generator.component:
        return "denoiser"
    return "text encoders" if name.startswith("text_encoder") else "decoder"
