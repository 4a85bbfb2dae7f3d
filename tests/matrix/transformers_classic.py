"""Families whose denoiser is a diffusion transformer of its own kind: PixArt, SANA, Lumina, SD3..."""

from typing import Any

import diffusers
from autoencoders import dc, kl, video
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from families import family
from text_encoders import TOKENS, WIDTH, bert, clip, decoder, qwen_processor, qwen_vl, t5, t5_gemma, words
from torch import nn

HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}


def pixart_components() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": t5(),
        "vae": kl(),
        "transformer": diffusers.PixArtTransformer2DModel(
            **HEADS,
            sample_size=8,
            num_layers=2,
            patch_size=2,
            caption_channels=WIDTH,
            cross_attention_dim=16,
            in_channels=4,
            out_channels=8,
        ),
        "scheduler": DPMSolverMultistepScheduler(),
    }


@family("PixArtAlpha", max_sequence_length=TOKENS)
def pixart_alpha() -> dict[str, Any]:
    return pixart_components()


@family("PixArtSigma", max_sequence_length=TOKENS)
def pixart_sigma() -> dict[str, Any]:
    return pixart_components()


@family("PixArtSigmaPAG", max_sequence_length=TOKENS)
def pixart_sigma_pag() -> dict[str, Any]:
    return {**pixart_components(), "pag_applied_layers": "blocks.1"}


@family("StableDiffusion3", max_sequence_length=TOKENS)
def sd3() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": kl(),
        "text_encoder": clip(projection=True, width=8),
        "tokenizer": words(),
        "text_encoder_2": clip(projection=True, width=8),
        "tokenizer_2": words(),
        "text_encoder_3": t5(),
        "tokenizer_3": words(),
        "transformer": diffusers.SD3Transformer2DModel(
            **HEADS,
            sample_size=8,
            in_channels=4,
            num_layers=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=16,
            out_channels=4,
        ),
    }


@family("StableDiffusion3PAG", max_sequence_length=TOKENS)
def sd3_pag() -> dict[str, Any]:
    return {**sd3(), "pag_applied_layers": "blocks.1"}


@family("AuraFlow", max_sequence_length=TOKENS)
def aura_flow() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": t5("UMT5"),
        "vae": kl(),
        "transformer": diffusers.AuraFlowTransformer2DModel(
            **HEADS,
            sample_size=8,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pos_embed_max_size=64,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


@family("HunyuanDiT")
def hunyuan_dit() -> dict[str, Any]:
    return {
        "vae": kl(blocks=4),
        "text_encoder": bert(),
        "tokenizer": words(77),
        "text_encoder_2": t5(),
        "tokenizer_2": words(256),
        "transformer": diffusers.HunyuanDiT2DModel(
            **HEADS,
            sample_size=4,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            hidden_size=16,
            cross_attention_dim=WIDTH,
            cross_attention_dim_t5=WIDTH,
            pooled_projection_dim=16,
        ),
        "scheduler": DDPMScheduler(clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


@family("HunyuanDiTPAG")
def hunyuan_dit_pag() -> dict[str, Any]:
    return {**hunyuan_dit(), "pag_applied_layers": "blocks.1"}


def sana_transformer(**changes: Any) -> nn.Module:
    return diffusers.SanaTransformer2DModel(
        **HEADS,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=16,
        **changes,
    )


def sana_components(scheduler: Any, **changes: Any) -> dict[str, Any]:
    return {
        "tokenizer": words(300),
        "text_encoder": decoder("Gemma2"),
        "vae": dc(),
        "transformer": sana_transformer(**changes),
        "scheduler": scheduler,
    }


@family("Sana", max_sequence_length=300)
def sana() -> dict[str, Any]:
    return sana_components(FlowMatchEulerDiscreteScheduler(shift=3.0))


@family("SanaPAG", max_sequence_length=300)
def sana_pag() -> dict[str, Any]:
    return sana_components(FlowMatchEulerDiscreteScheduler(shift=3.0))


@family("SanaSprint", max_sequence_length=300)
def sana_sprint() -> dict[str, Any]:
    return sana_components(diffusers.SCMScheduler(), qk_norm="rms_norm_across_heads", guidance_embeds=True)


@family("Lumina", max_sequence_length=256)
def lumina() -> dict[str, Any]:
    return {
        "tokenizer": words(256),
        "text_encoder": decoder("Gemma"),
        "vae": kl(blocks=4),
        "transformer": diffusers.LuminaNextDiT2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            hidden_size=16,
            num_layers=2,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            cross_attention_dim=WIDTH,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


@family("Lumina2", max_sequence_length=64)
def lumina2() -> dict[str, Any]:
    return {
        "tokenizer": words(64),
        "text_encoder": decoder("Gemma2"),
        "vae": kl(blocks=4),
        "transformer": diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=32,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 6, 6),
            axes_lens=(256, 32, 32),
            cap_feat_dim=WIDTH,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def cogview(kind: str, **changes: Any) -> nn.Module:
    return getattr(diffusers, f"{kind}Transformer2DModel")(
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=2,
        sample_size=8,
        pos_embed_max_size=8,
        **changes,
    )


@family("CogView3Plus", max_sequence_length=TOKENS)
def cogview3() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": t5(),
        "vae": kl(),
        "transformer": cogview("CogView3Plus"),
        "scheduler": diffusers.CogVideoXDDIMScheduler(
            clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True
        ),
    }


@family("CogView4", max_sequence_length=TOKENS)
def cogview4() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": decoder("Glm"),
        "vae": kl(),
        "transformer": cogview("CogView4", rope_axes_dim=(8, 8)),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True
        ),
    }


@family("HiDreamImage", size=128, max_sequence_length=TOKENS)
def hidream() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": kl(blocks=1),
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
            num_visual_blocks=2,
            axes_dims=(2, 2, 4),
        ),
        "vae": kl(blocks=4, block_out_channels=(4, 4, 4, 4), mid_block_add_attention=False),
        "text_encoder": qwen_vl("Qwen2_5_VL"),
        "tokenizer": qwen_processor("Qwen2VL"),
        "text_encoder_2": clip(),
        "tokenizer_2": words(77),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
