"""Autoencoders of random weights, tiny."""

from typing import Any

import diffusers
from torch import nn


def kl(channels: int = 4, blocks: int = 3, kind: str = "AutoencoderKL", **changes: Any) -> nn.Module:
    """A convolutional autoencoder that makes 2 ** (blocks - 1) pixels of one latent [channels]."""
    return getattr(diffusers, kind)(
        **{
            "block_out_channels": (8,) * blocks,
            "down_block_types": ("DownEncoderBlock2D",) * blocks,
            "up_block_types": ("UpDecoderBlock2D",) * blocks,
            "latent_channels": channels,
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "sample_size": 32,
            **({"shift_factor": 0.1} if kind == "AutoencoderKL" else {}),
            **changes,
        }
    )


def tiny(channels: int = 4, blocks: int = 2) -> nn.Module:
    """An AutoencoderTiny."""
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * blocks,
        decoder_block_out_channels=(8,) * blocks,
        num_encoder_blocks=(1,) * blocks,
        num_decoder_blocks=(1,) * blocks,
        latent_channels=channels,
    )


def dc(channels: int = 4) -> nn.Module:
    """The deep-compression autoencoder of SANA."""
    blocks = ("ResBlock", "EfficientViTBlock")
    return diffusers.AutoencoderDC(
        latent_channels=channels,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def video(channels: int = 4, kind: str = "AutoencoderKLQwenImage", **changes: Any) -> nn.Module:
    """A video autoencoder of which a picture is one frame; 4 pixels a latent."""
    return getattr(diffusers, kind)(
        **{
            "base_dim": 8,
            "z_dim": channels,
            "dim_mult": [1, 2, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [False, True],
            "latents_mean": [0.0] * channels,
            "latents_std": [1.0] * channels,
            **changes,
        }
    )
