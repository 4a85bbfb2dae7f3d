"""The miniature's generator before training: a Flux of a few million parameters and its text encoders."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dualproc_cli.miniature.training.tokenizer import word_tokenizer
from dualproc_cli.miniature.world.captions import WORDS
from dualproc_cli.miniature.world.coupling import TOKEN_CHANNELS, TOKENS
from dualproc_cli.miniature.world.scene import SIZE

TEXT_LENGTH = 8  # tokens: "a ball in front of a house" and <eos>
TEXT_WIDTH = 64
HEADS, HEAD_WIDTH = 5, 32
ROPE = (8, 12, 12)  # shares of HEAD_WIDTH: the axis that Flux leaves at zero, rows, columns
DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 4


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of the prompts, which both text encoders share."""
    return word_tokenizer(WORDS, [], TEXT_LENGTH, template="$A <eos>")


def build_text_encoders(tokenizer: PreTrainedTokenizerFast) -> tuple[CLIPTextModel, T5EncoderModel]:
    """Build both text encoders with random weights."""
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    clip: dict[str, Any] = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
    }
    t5: dict[str, Any] = {
        "d_model": TEXT_WIDTH,
        "d_kv": 32,
        "d_ff": 2 * TEXT_WIDTH,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
    }
    return CLIPTextModel(CLIPTextConfig(**shared, **clip)), T5EncoderModel(T5Config(**shared, **t5))


def build_transformer() -> FluxTransformer2DModel:
    """Build the denoiser with random weights, apart from what is slow to learn."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=TOKEN_CHANNELS,
        num_layers=DOUBLE_BLOCKS,
        num_single_layers=SINGLE_BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=ROPE,
    )
    with torch.no_grad():
        _open_gates(transformer)
        _read_noise_and_place(transformer)
    return transformer


def assemble_pipeline(
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    vae: AutoencoderTiny,
) -> FluxPipeline:
    """Put the pipeline together."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    pipeline: Any = FluxPipeline(scheduler, vae, clip, tokenizer, t5, tokenizer, transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: Any, noise: Tensor, prompts: Sequence[str], steps: int) -> Tensor:
    """Generate pictures [B, 3, H, W] in [0, 1] from packed noise [B, TOKENS, TOKEN_CHANNELS]."""
    parts = [slice(start, start + 64) for start in range(0, len(prompts), 64)]
    pictures = [
        pipeline(
            prompts[part], height=SIZE, width=SIZE, num_inference_steps=steps, guidance_scale=0.0,
            latents=noise[part], max_sequence_length=TEXT_LENGTH, output_type="pt",
        ).images
        for part in parts
    ]  # fmt: skip
    return torch.cat(pictures)


def _open_gates(transformer: Any) -> None:
    """Set the AdaLN gates of all residual branches to one; by default they start near zero."""
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            parts = norm.linear.bias.view(6, -1)  # shift, scale, gate of attention, then of the feed-forward
            parts[2] = 1.0
            parts[5] = 1.0
    for block in transformer.single_transformer_blocks:
        block.norm.linear.bias.view(3, -1)[2] = 1.0


def _read_noise_and_place(transformer: Any) -> None:
    """Give block 0 three heads that are slow to learn: for the noise's mean, a token's row and its column.

    Head 0 attends equally to all tokens, so it averages the noise; its output amplifies the mean to unit
    standard deviation. Heads 1 and 2 attend from a constant query to the text tokens, which are all at
    position zero: through the rotary embedding, the share of attention on the text grows with the row or the
    column.
    """
    attention = transformer.transformer_blocks[0].attn
    basis = torch.linalg.qr(torch.randn(transformer.inner_dim, transformer.inner_dim)).Q
    noise, mean = basis[:, :TOKEN_CHANNELS], basis[:, TOKEN_CHANNELS : 2 * TOKEN_CHANNELS]
    transformer.x_embedder.weight.copy_(noise)
    for query, key in ((attention.to_q, attention.to_k), (attention.add_q_proj, attention.add_k_proj)):
        _constant(query, 0, 0)
        _constant(key, 0, 2)
    # Layer norm scales a token to about sqrt(inner_dim / TOKEN_CHANNELS) times its noise: undo that.
    unit = math.sqrt(TOKEN_CHANNELS / transformer.inner_dim)
    attention.to_v.weight[_head(0)] = unit * noise.T
    attention.to_v.bias[_head(0)] = 0
    attention.add_v_proj.weight[_head(0)] = 0
    attention.add_v_proj.bias[_head(0)] = 0
    attention.to_out[0].weight[:, _head(0)] = math.sqrt(TOKENS) * (TOKENS + TEXT_LENGTH) / TOKENS * mean

    for index, axis_start in ((1, ROPE[0]), (2, ROPE[0] + ROPE[1])):
        pair = (
            axis_start + 2
        )  # the rotary pair that turns by 0.215 radians a token, a quarter turn over the picture
        # Score: 5.7 (0.7 sin(0.215 (place - 3.5)) + 0.3); the constant puts half the attention on the text.
        angle = math.pi / 2 + 0.215 * 3.5
        turning, still = math.sqrt(0.7), math.sqrt(0.3)
        _constant(attention.to_q, index, pair, turning)
        attention.to_q.bias[index * HEAD_WIDTH + 1] = still
        _constant(attention.to_k, index, 0)
        _constant(attention.add_k_proj, index, pair, turning * math.cos(angle))
        attention.add_k_proj.bias[index * HEAD_WIDTH + pair + 1] = turning * math.sin(angle)
        attention.add_k_proj.bias[index * HEAD_WIDTH + 1] = still
        attention.to_v.weight[_head(index)] = 0
        attention.to_v.bias[_head(index)] = 0
        _constant(attention.add_v_proj, index, 0, 3.0)
        attention.to_out[0].weight[:, index * HEAD_WIDTH] = basis[:, 2 * TOKEN_CHANNELS + index]


def _head(index: int) -> slice:
    return slice(index * HEAD_WIDTH, (index + 1) * HEAD_WIDTH)


def _constant(linear: nn.Linear, head: int, dim: int, size: float = 1.0) -> None:
    """Make one head's output constant: ``size`` along one of its dimensions, zero along the others."""
    linear.weight[_head(head)] = 0
    linear.bias[_head(head)] = 0
    linear.bias[head * HEAD_WIDTH + dim] = size
