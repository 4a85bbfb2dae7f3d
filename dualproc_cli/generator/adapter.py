"""LoRA adapters in a denoiser: where they go, how they start, which of them are in force.

LoRA (Hu et al. 2022): W' = W + scale * B A with A [rank, in] and B [out, rank]. B starts at zero, so that
a new adapter changes nothing.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from dualproc_cli.errors import UserError

# Projections of a transformer block that modulate a normalisation instead of processing tokens.
MODULATION = re.compile(r"norm|modulation|_mod(\.|$)")
# What a layer that already carries an adapter consists of.
PARTS = re.compile(r"\.(base_layer|lora_\w+)(\.|$)")


def auto_targets(denoiser: nn.Module) -> list[str]:
    """Names of the attention and feed-forward projections of ``denoiser``, whatever its architecture.

    These are the linear layers of every transformer block, a block being what holds an attention module,
    except those that modulate its normalisations. So the projections at the denoiser's own ends are left
    alone, and a fused block's ``proj_mlp`` and ``proj_out`` (Flux) are found.
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


def inject(
    denoiser: nn.Module, name: str, rank: int, alpha: float, target_modules: Sequence[str], seed: int
) -> None:
    """Add an adapter called ``name``, frozen, with float32 weights whatever the base's, beside those there.

    Args:
        denoiser: a transformer or UNet; its own weights are left as they are.
        name: of the adapter, without dots.
        rank: of the update.
        alpha: the update is multiplied by alpha / rank.
        target_modules: names of linear layers, or what their names end with after a dot.
        seed: of A's random start, drawn on the CPU and so the same on every device.

    Raises:
        UserError: no module has such a name, or one that has cannot carry a LoRA.
    """
    in_force = [*active(denoiser), name]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _same_requires_grad(denoiser):
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
    _activate(denoiser, in_force)


def tensors(denoiser: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The weights of adapter ``name``, under their names in an adapter file (``MODULE.lora_A.weight``)."""
    return {
        key.replace(f".{name}.", "."): parameter
        for key, parameter in denoiser.named_parameters()
        if ".lora_" in key and f".{name}." in key
    }


def layers(denoiser: nn.Module) -> list[LoraLayer]:
    """Every layer that carries adapters."""
    return [module for module in denoiser.modules() if isinstance(module, LoraLayer)]


def active(denoiser: nn.Module) -> list[str]:
    """Names of the adapters in force."""
    return list(
        dict.fromkeys(name for layer in layers(denoiser) for name in layer.active_adapters if name in layer.r)
    )


def _activate(denoiser: nn.Module, names: list[str]) -> None:
    with _same_requires_grad(denoiser):
        for layer in layers(denoiser):
            layer.set_adapter(names)


@contextmanager
def suspended(denoiser: nn.Module) -> Iterator[None]:
    """No adapter is in force inside the block: the denoiser is the base, exactly."""
    with _same_requires_grad(denoiser):
        try:
            for layer in layers(denoiser):
                layer.enable_adapters(False)
            yield
        finally:
            for layer in layers(denoiser):
                layer.enable_adapters(True)


@contextmanager
def _same_requires_grad(denoiser: nn.Module) -> Iterator[None]:
    # peft makes every adapter that it puts in force trainable, those that were only loaded too.
    before = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _block(attention: str, modules: dict[str, nn.Module]) -> str:
    parent = attention.rpartition(".")[0]
    # A list of attentions, or the denoiser itself, is no block: the attention stands alone there.
    alone = not parent or isinstance(modules[parent], nn.ModuleList)
    return attention if alone else parent
