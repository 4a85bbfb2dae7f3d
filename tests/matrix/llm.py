"""Families that lean on a large language or vision-language model, or on several denoisers."""

from typing import Any

import diffusers
import transformers
from autoencoders import kl, video
from diffusers import FlowMatchEulerDiscreteScheduler
from families import family
from text_encoders import CHAT, WIDTH, byt5, chat, decoder, mistral3, qwen_processor, qwen_vl
from transformers import ByT5Tokenizer


@family("HunyuanImage")
def hunyuan_image() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "vae": diffusers.AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32, 32),
            layers_per_block=1,
            scaling_factor=0.5,
            spatial_compression_ratio=4,
            sample_size=32,
        ),
        "text_encoder": qwen_vl("Qwen2_5_VL", layers=3),
        "tokenizer": chat(),
        "text_encoder_2": byt5(),
        "tokenizer_2": ByT5Tokenizer(),
        "transformer": diffusers.HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            rope_axes_dim=(4, 4),
        ),
        "guider": diffusers.AdaptiveProjectedMixGuidance(),
        "ocr_guider": diffusers.AdaptiveProjectedMixGuidance(),
    }


@family("BriaFibo", max_sequence_length=128)
def bria_fibo() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": video(
            kind="AutoencoderKLWan", dim_mult=[1, 2, 2, 2, 2], temperal_downsample=[False, True, True, True]
        ),
        "text_encoder": decoder("SmolLM3", "ForCausalLM", vocab_size=128001),
        "tokenizer": chat(),
        "transformer": diffusers.BriaFiboTransformer2DModel(
            attention_head_dim=16,
            num_attention_heads=2,
            num_layers=1,
            num_single_layers=1,
            in_channels=4,
            joint_attention_dim=2 * WIDTH,
            axes_dims_rope=[4, 6, 6],
            text_encoder_dim=WIDTH,
        ),
    }


@family("ErnieImage", use_pe=False)
def ernie() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": kl(kind="AutoencoderKLFlux2"),
        "text_encoder": mistral3(layers=2).model,
        "tokenizer": chat(),
        "transformer": diffusers.ErnieImageTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=32,
            in_channels=16,
            out_channels=16,
            text_in_dim=WIDTH,
            rope_axes_dim=(4, 6, 6),
        ),
    }


def ideogram_transformer() -> Any:
    return diffusers.Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        intermediate_size=32,
        adaln_dim=16,
        llm_features_dim=13 * WIDTH,
        mrope_section=(4, 2, 2),
    )


@family("Ideogram4", max_sequence_length=128, guidance_schedule=None)
def ideogram() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": kl(kind="AutoencoderKLFlux2"),
        "text_encoder": qwen_vl("Qwen3VL", "Model", layers=36),
        "tokenizer": chat(),
        "transformer": ideogram_transformer(),
        "unconditional_transformer": ideogram_transformer(),
    }


@family("NucleusMoEImage")
def nucleus() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": video(),
        "text_encoder": qwen_vl("Qwen3VL", layers=8),
        "processor": qwen_processor("Qwen3VL"),
        "transformer": diffusers.NucleusMoEImageTransformer2DModel(
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            in_channels=16,
            out_channels=4,
            num_layers=5,
            mlp_ratio=6.0,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
            num_experts=4,
            moe_intermediate_dim=16,
            capacity_factors=[2.0] * 5,
        ),
    }


@family("QwenImage21", size=64, true_cfg_scale=3.0, negative_prompt=" ")
def qwen_image21() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": video(
            kind="AutoencoderKLQwenImage21",
            decoder_base_dim=8,
            dim_mult=[1, 2, 2, 2, 2],
            temperal_downsample=[False, False, True, True],
        ),
        "text_encoder": qwen_vl("Qwen3VL"),
        "processor": qwen_processor("Qwen3VL"),
        "transformer": diffusers.QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
    }


@family("GlmImage")
def glm_image() -> dict[str, Any]:
    tokenizer = chat(image_token="<|image_pad|>", grid_bos_token="<bos>", grid_eos_token="<eos>")
    config = transformers.GlmImageConfig(
        text_config={
            "vocab_size": 64,
            "vision_vocab_size": 32,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "eos_token_id": 63,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "patch_size": 8,
        },
        vq_config={"embed_dim": 8, "num_embeddings": 32, "latent_channels": 8},
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "processor": transformers.GlmImageProcessor(
            image_processor=transformers.GlmImageImageProcessor(), tokenizer=tokenizer, chat_template=CHAT
        ),
        "text_encoder": byt5(),
        "vision_language_encoder": transformers.GlmImageForConditionalGeneration(config).eval(),
        "vae": kl(blocks=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        "transformer": diffusers.GlmImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=WIDTH,
            time_embed_dim=8,
            condition_dim=4,
            prior_vq_quantizer_codebook_size=32,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
