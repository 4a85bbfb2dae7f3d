"""Google's VLMs: a picture's tokens may see each other, and in a prefix-LM the question."""

from typing import Any

import transformers as t
from vlm_parts import PATCH, SIGLIP, SLIDING, SQUARE, Parts, chat, text
from vlm_tokenizers import tokenizer

GEMMA = {
    "turn": "<start_of_turn>ROLE\n",
    "end": "<end_of_turn>\n",
    "answer": "<start_of_turn>model\n",
    "start": "<bos>",
}


def gemma3() -> Parts:
    """A picture's tokens see each other, and nothing after them; every other layer slides."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    words = gemma_words("<start_of_turn>", "<end_of_turn>", **named)
    processor = t.Gemma3Processor(
        t.Gemma3ImageProcessor(size=SQUARE),
        words,
        image_seq_length=4,
        chat_template=chat("<start_of_image>", **GEMMA),
    )
    config = t.Gemma3Config(
        vision_config=SIGLIP,
        text_config=gemma_text(words, "gemma3_text", query_pre_attn_scalar=16),
        mm_tokens_per_image=4,
        image_token_index=words.image_token_id,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
    )
    return Parts(t.Gemma3ForConditionalGeneration, config, processor)


def gemma4() -> Parts:
    words, turns = _gemma4_words()
    sizes = {"patch_size": PATCH, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = t.Gemma4Processor(
        t.Gemma4AudioFeatureExtractor(),
        t.Gemma4ImageProcessor(**sizes),
        words,
        t.Gemma4VideoProcessor(**sizes),
        chat_template=chat("<|image|>", **turns),
    )
    config = t.Gemma4Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "pooling_kernel_size": 2,
            "position_embedding_size": 256,
        },
        text_config=gemma_text(
            words,
            "gemma4_text",
            global_head_dim=16,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=len(words),
        ),
        audio_config=None,
        **_gemma4_ids(words),
    )
    return Parts(t.Gemma4ForConditionalGeneration, config, processor)


def paligemma() -> Parts:
    """A prefix-LM without a chat template."""
    words = gemma_words("<image>")
    pictures = t.SiglipImageProcessor(size=SQUARE)
    pictures.image_seq_length = (32 // PATCH) ** 2
    config = t.PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=gemma_text(words, "gemma", layer_types=None, sliding_window=None),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return Parts(t.PaliGemmaForConditionalGeneration, config, t.PaliGemmaProcessor(pictures, words))


def gemma_words(*special: str, **named: str) -> t.PreTrainedTokenizerFast:
    return tokenizer(*special, kind="bare pieces", bos="<bos>", eos="<eos>", starts=True, **named)


def gemma_text(words: t.PreTrainedTokenizerFast, model_type: str, **more: Any) -> dict[str, Any]:
    return {
        k: v for k, v in text(words, model_type, head_dim=16, **{**SLIDING, **more}).items() if v is not None
    }


def gemma4_unified() -> Parts:
    """Without a tower: patches go right into the language model."""
    words, turns = _gemma4_words()
    sizes = {"patch_size": PATCH, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = t.Gemma4UnifiedProcessor(
        t.Gemma4UnifiedAudioFeatureExtractor(),
        t.Gemma4UnifiedImageProcessor(**sizes),
        words,
        t.Gemma4UnifiedVideoProcessor(**sizes),
        chat_template=chat("<|image|>", **turns),
    )
    config = t.Gemma4UnifiedConfig(
        vision_config={
            "patch_size": PATCH,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 32,
            "mm_posemb_size": 64,
            "output_proj_dims": 32,
        },
        text_config=gemma_text(words, "gemma4_unified_text", global_head_dim=16),
        audio_config=None,
        **_gemma4_ids(words),
    )
    return Parts(t.Gemma4UnifiedForConditionalGeneration, config, processor)


def _gemma4_words() -> tuple[t.PreTrainedTokenizerFast, dict[str, str]]:
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    words = gemma_words("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|video|>", **named)
    return words, {"turn": "<|turn>ROLE\n", "end": "<turn|>\n", "answer": "<|turn>model\n", "start": "<bos>"}


def _gemma4_ids(words: t.PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": words.image_token_id,
        "boi_token_id": words.boi_token_id,
        "eoi_token_id": words.eoi_token_id,
        "audio_token_id": words.audio_token_id,
        "video_token_id": words.convert_tokens_to_ids("<|video|>"),
    }
