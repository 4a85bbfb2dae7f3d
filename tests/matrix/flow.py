"""Flux and its kin: transformers of double- and single-stream blocks that predict a velocity."""

from typing import Any

import diffusers
import transformers
from autoencoders import kl, video
from diffusers import FlowMatchEulerDiscreteScheduler
from families import family
from text_encoders import (
    CHAT_TOKENS,
    TOKENS,
    WIDTH,
    chat,
    clip,
    decoder,
    mistral3,
    qwen_processor,
    qwen_vl,
    siglip,
    t5,
    words,
)

HEADS = {"attention_head_dim": 16, "num_attention_heads": 2}
ROPE = (4, 6, 6)
BLOCKS = {"num_layers": 1, "num_single_layers": 1}


def flow(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**options)


@family("Flux", max_sequence_length=TOKENS)
def flux() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(),
        "text_encoder": clip(),
        "tokenizer": words(),
        "text_encoder_2": t5(),
        "tokenizer_2": words(),
        "transformer": diffusers.FluxTransformer2DModel(
            **HEADS,
            **BLOCKS,
            in_channels=16,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=True,
            axes_dims_rope=ROPE,
        ),
    }


@family("FluxKontext", max_sequence_length=TOKENS, max_area=32 * 32)
def flux_kontext() -> dict[str, Any]:
    return flux()


@family("Chroma", max_sequence_length=TOKENS)
def chroma() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(),
        "text_encoder": t5(),
        "tokenizer": words(),
        "transformer": diffusers.ChromaTransformer2DModel(
            **HEADS,
            **BLOCKS,
            in_channels=16,
            joint_attention_dim=WIDTH,
            axes_dims_rope=ROPE,
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    }


@family("Bria", max_sequence_length=TOKENS)
def bria() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(),
        "text_encoder": t5(),
        "tokenizer": words(),
        "transformer": diffusers.BriaTransformer2DModel(
            **HEADS, **BLOCKS, in_channels=16, joint_attention_dim=WIDTH, axes_dims_rope=list(ROPE)
        ),
    }


@family("OvisImage", max_sequence_length=CHAT_TOKENS)
def ovis() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(),
        "text_encoder": decoder("Qwen3"),
        "tokenizer": chat(),
        "transformer": diffusers.OvisImageTransformer2DModel(
            **HEADS,
            **BLOCKS,
            in_channels=16,
            out_channels=16,
            joint_attention_dim=WIDTH,
            axes_dims_rope=ROPE,
        ),
    }


@family("LongCatImage", enable_prompt_rewrite=False)
def longcat() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(channels=16),
        "text_encoder": qwen_vl("Qwen2_5_VL"),
        "tokenizer": chat(),
        "text_processor": qwen_processor("Qwen2VL"),
        "transformer": diffusers.LongCatImageTransformer2DModel(
            **HEADS,
            **BLOCKS,
            in_channels=64,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=list(ROPE),
        ),
    }


def flux2_transformer(streams: int) -> Any:
    return diffusers.Flux2Transformer2DModel(
        **HEADS,
        **BLOCKS,
        in_channels=16,
        joint_attention_dim=streams * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )


@family("Flux2", max_sequence_length=CHAT_TOKENS)
def flux2() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(kind="AutoencoderKLFlux2"),
        "text_encoder": mistral3(layers=30),
        "tokenizer": chat(),
        "transformer": flux2_transformer(streams=3),
    }


@family("Flux2Klein", max_sequence_length=CHAT_TOKENS)
def flux2_klein() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(kind="AutoencoderKLFlux2"),
        "text_encoder": decoder("Qwen3", "ForCausalLM", layers=27),
        "tokenizer": chat(),
        "transformer": flux2_transformer(streams=3),
    }


@family("QwenImage", max_sequence_length=CHAT_TOKENS, true_cfg_scale=3.0, negative_prompt=" ")
def qwen_image() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": video(),
        "text_encoder": qwen_vl("Qwen2_5_VL"),
        "tokenizer": chat(),
        "transformer": diffusers.QwenImageTransformer2DModel(
            **HEADS,
            num_layers=2,
            in_channels=16,
            out_channels=4,
            joint_attention_dim=WIDTH,
            axes_dims_rope=ROPE,
        ),
    }


def z_image_transformer(**changes: Any) -> Any:
    return diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=list(ROPE),
        axes_lens=[256, 32, 32],
        **changes,
    )


@family("ZImage", max_sequence_length=CHAT_TOKENS)
def z_image() -> dict[str, Any]:
    return {
        "scheduler": flow(),
        "vae": kl(),
        "text_encoder": decoder("Qwen3"),
        "tokenizer": chat(),
        "transformer": z_image_transformer(),
    }


@family("ZImageOmni", max_sequence_length=CHAT_TOKENS)
def z_image_omni() -> dict[str, Any]:
    return {
        **z_image(),
        "transformer": z_image_transformer(siglip_feat_dim=WIDTH),
        "siglip": siglip(),
        "siglip_processor": transformers.Siglip2ImageProcessor(),
    }
