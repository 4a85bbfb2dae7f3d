"""Writes a Stable Diffusion pipeline as one file, under the names of the first published checkpoints."""

import re
from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save_as_one_file(pipeline: StableDiffusionPipeline, file: Path) -> None:
    """Write the weights of UNet, autoencoder and text encoder to ``file``."""
    parts: dict[str, Tensor] = {}
    weights = pipeline.unet.state_dict()
    for name, value in weights.items():
        level = ".".join(name.split(".")[:2])
        attends = any(other.startswith(f"{level}.attentions.") for other in weights)
        published = _of_unet(name, attends, pipeline.unet.config.layers_per_block)
        parts[f"model.diffusion_model.{published}"] = value
    for name, value in pipeline.vae.state_dict().items():
        new = _of_autoencoder(name, len(pipeline.vae.config.block_out_channels))
        is_matrix = ".attn_1." in new and value.ndim == 2  # the published ones are convolutions
        parts[f"first_stage_model.{new}"] = value[..., None, None] if is_matrix else value
    for name, value in pipeline.text_encoder.state_dict().items():
        path = name if name.startswith("text_model.") else f"text_model.{name}"
        parts[f"cond_stage_model.transformer.{path}"] = value
    save_file({name: value.contiguous() for name, value in parts.items()}, file)


def _of_unet(name: str, attends: bool, layers: int) -> str:
    """Return the name of a weight of a UNet.

    Args:
        name: in diffusers.
        attends: whether there is attention on the level of the weight.
        layers: residual blocks on each level.
    """
    for own, published in UNET.items():
        if name.startswith(f"{own}."):
            return name.replace(own, published, 1)
    found = re.fullmatch(r"(down|up|mid)_block(?:s\.(\d))?\.(\w+)\.(\d)\.(.*)", name)
    assert found, name
    way, level, kind, index, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if way == "mid":
        start = f"middle_block.{2 * index if kind == 'resnets' else 1}"
    elif kind == "downsamplers":
        start, rest = f"input_blocks.{(layers + 1) * (level + 1)}.0.op", rest.removeprefix("conv.")
    elif kind == "upsamplers":
        start = f"output_blocks.{(layers + 1) * (level + 1) - 1}.{1 + attends}"
    elif way == "down":
        start = f"input_blocks.{(layers + 1) * level + 1 + index}.{int(kind == 'attentions')}"
    else:
        start = f"output_blocks.{(layers + 1) * level + index}.{int(kind == 'attentions')}"
    part, dot, last = rest.rpartition(".")
    return f"{start}.{RESNET.get(part, part)}{dot}{last}"


def _of_autoencoder(name: str, blocks: int) -> str:
    """Return the name of a weight of an autoencoder with ``blocks`` levels."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if found := re.match(r"(\w+)\.mid_block\.(attentions|resnets)\.(\d)\.(.*)", name):
        side, kind, index, rest = found.groups()
        if kind == "resnets":
            return f"{side}.mid.block_{int(index) + 1}.{rest}"
        part, _, last = rest.rpartition(".")
        return f"{side}.mid.attn_1.{ATTENTION[part]}.{last}"
    found = re.match(r"(\w+)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)?\.?(.*)", name)
    if not found:
        return name
    side, way, level, kind, index, rest = found.groups()
    at = int(level) if way == "down" else blocks - 1 - int(level)
    if kind == "resnets":
        return f"{side}.{way}.{at}.block.{index}.{rest}"
    return f"{side}.{way}.{at}.{way}sample.{rest}"
