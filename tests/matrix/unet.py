"""Families whose denoiser is a U-Net: Stable Diffusion and its kin, Kandinsky 3, DeepFloyd IF, DreamLite."""

from typing import Any

import diffusers
from autoencoders import kl, tiny
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from families import PROMPT, family
from text_encoders import WIDTH, chat, clip, qwen_processor, qwen_vl, t5, words
from torch import nn

CHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def unet(**changes: Any) -> nn.Module:
    """A U-Net of two levels, attention to the prompt in the lower one."""
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 2,
            **changes,
        }
    )


def ddim() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def stable_diffusion(scheduler: Any, **changes: Any) -> dict[str, Any]:
    return {
        "scheduler": scheduler,
        "vae": kl(),
        "text_encoder": clip(),
        "tokenizer": words(),
        "unet": unet(**changes),
        **CHECKED,
    }


@family("StableDiffusion")
def sd() -> dict[str, Any]:
    return stable_diffusion(ddim())


@family("StableDiffusionPAG")
def sd_pag() -> dict[str, Any]:
    return stable_diffusion(ddim())


@family("StableDiffusionSAG")
def sd_sag() -> dict[str, Any]:
    return stable_diffusion(ddim())


@family("SemanticStableDiffusion")
def semantic() -> dict[str, Any]:
    return stable_diffusion(ddim())


@family("LatentConsistencyModel")
def lcm() -> dict[str, Any]:
    return stable_diffusion(diffusers.LCMScheduler(clip_sample=False), time_cond_proj_dim=8)


def sdxl_components() -> dict[str, Any]:
    return {
        "scheduler": EulerDiscreteScheduler(timestep_spacing="leading"),
        "vae": kl(),
        "text_encoder": clip(),
        "tokenizer": words(),
        "text_encoder_2": clip(projection=True),
        "tokenizer_2": words(),
        "unet": unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        "add_watermarker": False,
    }


@family("StableDiffusionXL")
def sdxl() -> dict[str, Any]:
    return sdxl_components()


@family("StableDiffusionXLPAG")
def sdxl_pag() -> dict[str, Any]:
    return sdxl_components()


@family("Kandinsky3", size=64)
def kandinsky3() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": t5(),
        "scheduler": DDPMScheduler(clip_sample=False, beta_start=0.00085, beta_end=0.012),
        "movq": diffusers.VQModel(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            num_vq_embeddings=12,
            norm_num_groups=4,
            vq_embed_dim=4,
            norm_type="spatial",
        ),
        "unet": diffusers.Kandinsky3UNet(
            time_embedding_dim=8,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(8, 16),
            cross_attention_dim=8,
            encoder_hid_dim=WIDTH,
        ),
    }


@family("IF")
def deepfloyd() -> dict[str, Any]:
    return {
        "tokenizer": words(),
        "text_encoder": t5(),
        "scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range"),
        "unet": unet(
            sample_size=32,
            out_channels=6,
            in_channels=3,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            encoder_hid_dim=WIDTH,
            class_embed_type=None,
            act_fn="gelu",
        ),
        "watermarker": None,
        **CHECKED,
    }


def dreamlite_components() -> dict[str, Any]:
    return {
        "text_encoder": qwen_vl("Qwen3VL"),
        "tokenizer": chat(),
        "processor": qwen_processor("Qwen3VL"),
        "vae": tiny(),
        "unet": diffusers.DreamLiteUNetModel(
            sample_size=16,
            down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
            up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
            block_out_channels=(8, 16),
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            layers_per_block=1,
            norm_num_groups=4,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


@family("DreamLite", prompt=PROMPT, max_sequence_length=128)
def dreamlite() -> dict[str, Any]:
    return dreamlite_components()


@family("DreamLiteMobile", prompt=PROMPT, max_sequence_length=128)
def dreamlite_mobile() -> dict[str, Any]:
    return dreamlite_components()
