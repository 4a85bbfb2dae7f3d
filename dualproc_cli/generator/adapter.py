"""Adapters in a denoiser: which layers carry them, how they are initialised, which are active."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import PeftConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.adapter_types import file_name

# Projections of a transformer block that modulate a normalisation instead of processing tokens.
MODULATION = re.compile(r"norm|modulation|_mod(\.|$)")
# Submodules of a layer that already carries an adapter.
PARTS = re.compile(r"\.(base_layer|lora_\w+)(\.|$)")


def auto_targets(denoiser: nn.Module) -> list[str]:
    """Return the names of the attention and feed-forward projections of a denoiser of any architecture.

    These are the linear layers of every transformer block (any module that holds an attention module), except
    those that modulate its normalisations. The denoiser's input and output projections are left out;
    those of a fused block (Flux's ``proj_mlp`` and ``proj_out``) are included.
    """
    modules = dict(denoiser.named_modules())
    blocks = {
        _block(name, modules)
        for name, module in modules.items()
        if type(module).__name__.endswith("Attention")
    }
    return [
        name
        for name, module in modules.items()
        if isinstance(getattr(module, "base_layer", module), nn.Linear)
        and not PARTS.search(name)
        and any(name.startswith(f"{block}.") and not MODULATION.search(name, len(block)) for block in blocks)
    ]


def targets(denoiser: nn.Module, wanted: Literal["auto"] | Sequence[str]) -> list[str]:
    """Return the full names of the layers that ``learn.adapter.target_modules`` means."""
    if wanted == "auto":
        return auto_targets(denoiser)
    endings = tuple(f".{name}" for name in wanted)
    return [
        name
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and f".{name}".endswith(endings)
    ]


def inject(denoiser: nn.Module, name: str, config: PeftConfig, seed: int) -> None:
    """Add an adapter called ``name``, frozen and in float32, to those that are there already.

    Args:
        denoiser: a transformer or UNet; its own weights are left as they are.
        name: the adapter's name, without dots.
        config: peft's configuration (see `adapter_types`); its target modules are names of linear layers, or
            the last parts of such names, such as ``to_q``.
        seed: seed of the initial weights, which are drawn on the CPU: they are the same on every device.

    Raises:
        UserError: no module has such a name, or one that has it cannot carry the adapter.
    """
    in_force = [*active(denoiser), name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _same_requires_grad([denoiser]):
        torch.default_generator.manual_seed(seed)
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # adapters compose on purpose
        try:
            inject_adapter_in_model(config, denoiser, name)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"learn.adapter.target_modules: {reason} (expected auto, or names of linear layers of "
                f"{type(denoiser).__name__}, such as to_q)"
            ) from error
    for parameter in tensors(denoiser, name).values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(False)
    _activate(layers(denoiser), in_force)


def tensors(denoiser: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Return the weights of adapter ``name``, under their names in an adapter file."""
    named = ((file_name(key, name), parameter) for key, parameter in denoiser.named_parameters())
    return {key: parameter for key, parameter in named if key is not None}


def fill(weights: Mapping[str, nn.Parameter], state: Mapping[str, Tensor], source: str, what: str) -> None:
    """Copy ``state`` into ``weights``, in place.

    Args:
        weights: parameters by name.
        state: their values under the same names.
        source: where the values are from, for the message.
        what: what they are the weights of, for the message.

    Raises:
        UserError: the names or the shapes differ.
    """
    odd = sorted(weights.keys() ^ state.keys()) or [
        key for key in weights if weights[key].shape != state[key].shape
    ]
    if odd:
        raise UserError(
            f"{source}: its weights are those of another {what} ({odd[0]} and {len(odd) - 1} more)"
        )
    with torch.no_grad():
        for key, tensor in weights.items():
            tensor.copy_(state[key])


def misfit(component: str, denoiser: nn.Module, file: AdapterFile) -> str | None:
    """Return in which way the adapter of ``file`` does not fit the pipeline's ``component``, or None."""
    if file.component != component:
        return f"it adapts a {file.component}, not a {component}"
    modules = dict(denoiser.named_modules())
    for target, features in file.layers.items():
        module = modules.get(target)
        if module is None or _features(module) != features:
            found = "no such layer" if module is None else "a layer of {} x {}".format(*_features(module))
            return f"it adapts {target} with {features[0]} x {features[1]}, and there is {found}"
    return None


def layers(denoiser: nn.Module) -> list[LoraLayer]:
    """Return every layer that carries adapters."""
    return [module for module in denoiser.modules() if isinstance(module, LoraLayer)]


def active(denoiser: nn.Module) -> list[str]:
    """Return the names of the active adapters."""
    return _active(layers(denoiser))


def _active(found: Sequence[LoraLayer]) -> list[str]:
    return list(dict.fromkeys(name for layer in found for name in layer.active_adapters if name in layer.r))


def _activate(found: Sequence[LoraLayer], names: Sequence[str]) -> None:
    with _same_requires_grad(found):
        for layer in found:
            layer.set_adapter(list(names))


@contextmanager
def suspended(denoiser: nn.Module, keep: Sequence[str] = ()) -> Iterator[None]:
    """Switch all adapters but ``keep`` off inside the block; without any, it is exactly the base model."""
    found = layers(denoiser)  # once, since it is done for every picture
    in_force = _active(found)
    with _same_requires_grad(found):
        try:
            if keep:
                _activate(found, keep)
            else:
                _enable(found, False)
            yield
        finally:
            if keep:
                _activate(found, in_force)
            else:
                _enable(found, True)


def _enable(found: Sequence[LoraLayer], enabled: bool) -> None:
    for layer in found:
        layer.enable_adapters(enabled)


@contextmanager
def _same_requires_grad(modules: Iterable[nn.Module | LoraLayer]) -> Iterator[None]:
    # peft makes every adapter that it activates trainable, also those that were only loaded.
    before = [
        (parameter, parameter.requires_grad)
        for module in modules
        if isinstance(module, nn.Module)  # as every LoraLayer is
        for parameter in module.parameters()
    ]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


@contextmanager
def scaled(denoiser: nn.Module, scales: Mapping[str, float], factor: float) -> Iterator[None]:
    """Multiply adapters inside the block; ``scales`` are those that each has outside of it."""

    def multiply(by: float) -> None:
        for layer in layers(denoiser):
            for name, scale in scales.items():
                if name in layer.r:
                    layer.set_scale(name, scale * by)

    try:
        multiply(factor)
        yield
    finally:
        multiply(1.0)


def _block(attention: str, modules: dict[str, nn.Module]) -> str:
    parent = attention.rpartition(".")[0]
    # An attention inside a list, or at the denoiser's top level, has no block around it and counts as one.
    alone = not parent or isinstance(modules[parent], nn.ModuleList)
    return attention if alone else parent


def _features(layer: Any) -> tuple[int, int]:
    if hasattr(layer, "in_features"):  # linear layers, quantised ones, and those that carry adapters
        return layer.in_features, layer.out_features
    return getattr(layer, "in_channels", 0), getattr(layer, "out_channels", 0)
