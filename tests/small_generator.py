"""Tiny pipelines with random weights, of the classes that real models have, saved as real models are."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from text_encoders import words
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.spec import AdapterSpec, GeneratorSpec

WORDS = ("a", "the", "by", "house", "tree", "ball", "lamp", "sea", "picture", "red", "blue")
TOKENS = 8  # of a prompt, at most
WIDTH = 16  # of the text encoders' features


def make_generator(folder: Path, width: int = 16) -> Path:
    """Save a tiny FluxPipeline that draws 64 x 64 pixels; ``width`` is that of its two attention heads."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=width,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(4, 6, 6) if width == 16 else (8, 12, 12),
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=8,
    )
    with torch.no_grad():  # mid-grey pictures with contrast: clamped pixels would hide gradients
        vae.decoder.layers[-1].weight.mul_(4)
        vae.decoder.layers[-1].bias.fill_(0.5)
    tokenizer = make_tokenizer()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=_clip(len(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=_t5(len(tokenizer)),
        tokenizer_2=tokenizer,
        transformer=transformer,
    )
    return _save(pipeline, folder)


def make_stable_diffusion(folder: Path) -> Path:
    """Save a tiny StableDiffusionPipeline (UNet, epsilon prediction, DDIM, guidance by a doubled batch)."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    tokenizer = make_tokenizer()
    pipeline = StableDiffusionPipeline(
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        vae=_vae(),
        text_encoder=_clip(len(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipeline, folder)


def make_pixart(folder: Path) -> Path:
    """Save a tiny PixArtAlphaPipeline (no ``add_adapter``, learned variance, DPM-Solver++)."""
    torch.manual_seed(2)
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        cross_attention_dim=16,
        in_channels=4,
        out_channels=8,
    )
    torch.nn.init.normal_(transformer.scale_shift_table)
    tokenizer = make_tokenizer()
    pipeline = PixArtAlphaPipeline(
        scheduler=DPMSolverMultistepScheduler(),
        vae=_vae(),
        text_encoder=_t5(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return _save(pipeline, folder)


MAKERS = {"flux": make_generator, "stable-diffusion": make_stable_diffusion, "pixart": make_pixart}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "flux": {"max_sequence_length": TOKENS},
    "stable-diffusion": {},
    "pixart": {"max_sequence_length": TOKENS, "use_resolution_binning": False, "clean_caption": False},
}
_folder = tempfile.TemporaryDirectory()


@functools.cache
def saved(name: str) -> Path:
    """Return the folder of one of `MAKERS`, made once per test session."""
    return MAKERS[name](Path(_folder.name) / name)


def load(name: str = "flux", **changes: Any) -> Generator:
    """Load one of `MAKERS` as the commands do: 64 x 64 pixels, 3 steps, guided."""
    settings = {
        "model": str(saved(name)),
        "width": 64,
        "height": 64,
        "steps": 3,
        "guidance_scale": 3.0,
        **changes,
    }
    return load_generator(GeneratorSpec(**settings), torch.device("cpu"))


def with_adapter(generator: Generator, seed: int = 0, scale: float = 2.0) -> Generator:
    """Add an adapter and give it an effect."""
    generator.add_adapter(AdapterSpec(rank=2, scale=scale), seed)
    noise = torch.Generator().manual_seed(seed)
    for parameter in generator.adapter_parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=noise)
    return generator


def plain_picture(pipeline: DiffusionPipeline, name: str, prompt: str, seed: int, steps: int = 3) -> Tensor:
    """Return what diffusers draws when a user calls it."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=[prompt],
        generator=[torch.Generator().manual_seed(seed)],
        num_inference_steps=steps,
        guidance_scale=3.0,
        width=64,
        height=64,
        output_type="pt",
        **ARGUMENTS[name],
    ).images


def _save(pipeline: object, folder: Path) -> Path:
    pipeline.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of words that pads and truncates to `TOKENS`."""
    special = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    return words(TOKENS, vocabulary)


def _clip(vocabulary: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return CLIPTextModel(config).eval()


def _t5(vocabulary: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
    )
