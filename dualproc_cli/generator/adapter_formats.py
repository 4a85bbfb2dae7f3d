"""An adapter under the names of other tools: kohya's (ComfyUI, Forge, InvokeAI, sd-scripts) and peft's.

Nothing but names changes, and layers that a tool has in one piece are put together. The strength is the same
everywhere: the factor is in the weights, and alpha is the rank.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.generator.adapter_file import AdapterFile

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
Layer = tuple[Tensor, Tensor]  # A [rank, in] and B [out, rank]

# Layers of Flux as Black Forest Labs named them; several in one piece are one layer there.
FLUX = {
    "transformer_blocks": (
        "double_blocks",
        {
            "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "img_attn_proj": ("attn.to_out.0",),
            "img_mlp_0": ("ff.net.0.proj",),
            "img_mlp_2": ("ff.net.2",),
            "img_mod_lin": ("norm1.linear",),
            "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "txt_attn_proj": ("attn.to_add_out",),
            "txt_mlp_0": ("ff_context.net.0.proj",),
            "txt_mlp_2": ("ff_context.net.2",),
            "txt_mod_lin": ("norm1_context.linear",),
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {
            "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
            "linear2": ("proj_out",),
            "modulation_lin": ("norm.linear",),
        },
    ),
}
MLP_RATIO = 4  # of Flux: outputs of proj_mlp for each input


@dataclass(frozen=True)
class Family:
    """What other tools call a family of generators.

    Attributes:
        architecture: its id in ModelSpec.
        version: kohya's ``ss_base_model_version``; None where there is none.
        kohya: renames an adapter's layers; None where kohya's scripts or diffusers know no such names.
    """

    architecture: str
    version: str | None = None
    kohya: Callable[[AdapterFile], dict[str, Layer]] | None = None


def family_of(file: AdapterFile) -> Family:
    """Return the family of the pipeline that ``file`` adapts."""
    pipeline = file.base.get("base_pipeline", "").removesuffix("Pipeline")
    if pipeline.startswith("StableDiffusionXL"):
        return Family("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", _sdxl)
    if pipeline.startswith("StableDiffusion3"):
        return Family("stable-diffusion-3", "sd3")
    if pipeline.startswith(("StableDiffusion", "LatentConsistencyModel")):
        # The second generation differs in the width of its text encoder.
        texts = {size for name, (size, _) in file.layers.items() if name.endswith("attn2.to_k")}
        second = 1024 in texts
        return Family(f"stable-diffusion-v{1 + second}", f"sd_v{1 + second}", _stable_diffusion)
    if pipeline.startswith("Flux") and not pipeline.startswith("Flux2"):
        guided = file.base.get("base_guidance_embeds") == "True"
        return Family("flux-1-dev" if guided else "flux-1-schnell", "flux1", _flux)
    return Family(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", pipeline).lower() or "unknown")


def kohya_tensors(file: AdapterFile) -> dict[str, Tensor]:
    """Return the adapter under kohya's names, ``lora_unet_X.lora_down.weight``, and so on.

    Raises:
        UserError: there are no such names for this generator, or for one of the layers.
    """
    rename = family_of(file).kohya
    if rename is None:
        raise UserError(
            f"--format kohya: there are no such names for a {file.base.get('base_pipeline', 'pipeline')}; "
            "export it with --format diffusers"
        )
    tensors = {}
    for name, (down, up) in sorted(rename(file).items()):
        tensors[f"lora_unet_{name}.lora_down.weight"] = down.contiguous()
        tensors[f"lora_unet_{name}.lora_up.weight"] = up.contiguous()
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def peft_tensors(file: AdapterFile) -> dict[str, Tensor]:
    """Return the adapter under peft's names, ``base_model.model.X.lora_A.weight``."""
    return {f"base_model.model.{key}": tensor for key, tensor in file.tensors.items()}


def peft_config(file: AdapterFile) -> dict[str, Any]:
    """Return peft's ``adapter_config.json``."""
    config = file.config.to_dict()
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in sorted(config.items())
        if value is not None
    }


def _layers(file: AdapterFile) -> dict[str, Layer]:
    return {name: (file.tensors[name + DOWN], file.tensors[name + UP]) for name in file.layers}


def _stable_diffusion(file: AdapterFile) -> dict[str, Layer]:
    return {name.replace(".", "_"): layer for name, layer in _layers(file).items()}


def _sdxl(file: AdapterFile) -> dict[str, Layer]:
    """Name the attention layers as Stability AI's code does, in which SDXL was trained."""
    depth = int(file.base.get("base_layers_per_block", 2))
    return {_sdxl_name(name, depth).replace(".", "_"): layer for name, layer in _layers(file).items()}


def _sdxl_name(name: str, depth: int) -> str:
    found = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.attentions\.(\d+)\.(.+)", name)
    if found is None:
        raise UserError(
            f"--format kohya: {name} is no attention layer, and only those have names there; export the "
            "bundle with --format diffusers"
        )
    which, block, index, rest = found[1], int(found[2] or 0), int(found[3]), found[4]
    if which == "mid":
        return f"middle_block.1.{rest}"
    # An input block is a layer or a downsampling, an output block a layer; the first input block is conv_in.
    number = block * (depth + 1) + index
    return f"input_blocks.{1 + number}.1.{rest}" if which == "down" else f"output_blocks.{number}.1.{rest}"


def _flux(file: AdapterFile) -> dict[str, Layer]:
    found, renamed = _layers(file), {}
    for blocks, (theirs, names) in FLUX.items():
        numbers = {name.split(".")[1] for name in found if name.startswith(f"{blocks}.")}
        for number in sorted(numbers, key=int):
            for target, parts in names.items():
                own = {part: found.pop(f"{blocks}.{number}.{part}", None) for part in parts}
                if any(layer is not None for layer in own.values()):
                    renamed[f"{theirs}_{number}_{target}"] = _joined(own, file.rank)
    if found:
        raise UserError(
            f"--format kohya: there is no such name for {min(found)}; export the bundle with --format "
            "diffusers"
        )
    return renamed


def _joined(parts: Mapping[str, Layer | None], rank: int) -> Layer:
    """Return one layer whose outputs are those of ``parts``, each from its own ``rank`` rows of A."""
    inputs = next(layer[0].shape[1] for layer in parts.values() if layer is not None)
    filled = [
        (torch.zeros(rank, inputs), torch.zeros(inputs * (MLP_RATIO if name == "proj_mlp" else 1), rank))
        if layer is None
        else layer
        for name, layer in parts.items()
    ]
    return torch.cat([down for down, _ in filled]), torch.block_diag(*[up for _, up in filled])
