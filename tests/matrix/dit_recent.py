"""Recent diffusion transformers of their own kind: HiDream, OmniGen, PRX, Krea 2, Kandinsky 5."""

from typing import Any

import diffusers
from autoencoders import kl, video
from diffusers import FlowMatchEulerDiscreteScheduler
from dit import HEADS
from families import family
from text_encoders import TOKENS, WIDTH, clip, decoder, qwen_processor, qwen_vl, t5, t5_gemma, words
from torch import nn


@family("HiDreamImage", size=128, max_sequence_length=TOKENS)
def hidream() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": kl(blocks=1, mid_block_add_attention=False),  # it decodes 128 x 128 latents
        "text_encoder": clip(projection=True),
        "tokenizer": words(),
        "text_encoder_2": clip(projection=True),
        "tokenizer_2": words(),
        "text_encoder_3": t5(),
        "tokenizer_3": words(),
        "text_encoder_4": decoder("Llama", "ForCausalLM"),
        "tokenizer_4": words(),
        "transformer": diffusers.HiDreamImageTransformer2DModel(
            **HEADS,
            patch_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            caption_channels=[WIDTH, WIDTH],
            text_emb_dim=2 * WIDTH,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(128, 128),
            llama_layers=(0, 1),
        ),
    }


@family("OmniGen")
def omnigen() -> dict[str, Any]:
    return {
        "transformer": diffusers.OmniGenTransformer2DModel(
            hidden_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            num_layers=2,
            in_channels=4,
            time_step_dim=8,
            pad_token_id=0,
            vocab_size=32,
            rope_scaling={"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        "vae": kl(blocks=4),
        "tokenizer": words(256),
    }


def prx_transformer(**changes: Any) -> nn.Module:
    return diffusers.PRXTransformer2DModel(
        **{
            "in_channels": 4,
            "patch_size": 2,
            "context_in_dim": WIDTH,
            "hidden_size": 16,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 2,
            "axes_dim": [4, 4],
            **changes,
        }
    )


@family("PRX")
def prx() -> dict[str, Any]:
    return {
        "transformer": prx_transformer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": t5_gemma(),
        "tokenizer": words(),
        "vae": kl(),
        "default_sample_size": 32,
    }


@family("PRXPixel")
def prx_pixel() -> dict[str, Any]:
    return {
        "transformer": prx_transformer(in_channels=3, patch_size=8, bottleneck_size=16),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": qwen_vl("Qwen3VL", "TextModel"),
        "tokenizer": words(),
        "default_sample_size": 32,
    }


@family("Krea2", max_sequence_length=64)
def krea2() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": video(),
        "text_encoder": qwen_vl("Qwen3VL", "Model"),
        "tokenizer": words(64),
        "transformer": diffusers.Krea2Transformer2DModel(
            attention_head_dim=16,
            num_attention_heads=2,
            in_channels=16,
            num_layers=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=WIDTH,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=32,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        ),
        "text_encoder_select_layers": (1, 2),
    }


@family("Kandinsky5T2I", size=1024, max_sequence_length=64)
def kandinsky5() -> dict[str, Any]:
    return {
        "transformer": diffusers.Kandinsky5Transformer3DModel(
            in_text_dim=WIDTH,
            in_text_dim2=WIDTH,
            time_dim=16,
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(2, 2, 4),
        ),
        "vae": kl(
            blocks=4,
            block_out_channels=(1, 1, 2, 4),
            norm_num_groups=1,
            layers_per_block=0,
            mid_block_add_attention=False,
        ),
        "text_encoder": qwen_vl("Qwen2_5_VL"),
        "tokenizer": qwen_processor("Qwen2VL"),
        "text_encoder_2": clip(),
        "tokenizer_2": words(77),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
