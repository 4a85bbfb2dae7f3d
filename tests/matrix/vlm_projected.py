"""VLMs that project what a vision tower sees into the embeddings of a language model."""

from typing import Any

import transformers as t
from vlm_parts import CHATML, CLIP, PATCH, PIXTRAL, SIGLIP, SQUARE, VISION, Parts, chat, text
from vlm_tokenizers import tokenizer

PINPOINTS = [[32, 64], [64, 32], [64, 64]]  # tilings of a picture
CROP = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
VICUNA = {
    "turn": "{{ message['role'] | upper }}: ",
    "end": " ",
    "answer": "ASSISTANT:",
    "said": "ASSISTANT: ",
}
GEMMA = {
    "turn": "<start_of_turn>ROLE\n",
    "end": "<end_of_turn>\n",
    "answer": "<start_of_turn>model\n",
    "start": "<bos>",
}


def llava() -> Parts:
    words = tokenizer("<image>", kind="pieces", starts=True)
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(**CROP),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat("<image>\n{{ '' }}", pictures_first=True, **VICUNA),
    )
    config = t.LlavaConfig(
        vision_config=CLIP,
        text_config=text(words, "llama"),
        image_token_index=processor.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    return Parts(t.LlavaForConditionalGeneration, config, processor)


def llava_next() -> Parts:
    words = tokenizer("<image>", kind="pieces", starts=True)
    processor = t.LlavaNextProcessor(
        t.LlavaNextImageProcessor(**CROP, image_grid_pinpoints=PINPOINTS),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat(
            "<image>\n{{ '' }}",
            turn="[INST] ",
            end=" {% if message['role'] == 'user' %}[/INST]{% endif %}",
            answer="",
            pictures_first=True,
        ),
    )
    config = t.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text(words, "mistral"),
        image_token_index=processor.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_grid_pinpoints=PINPOINTS,
    )
    return Parts(t.LlavaNextForConditionalGeneration, config, processor)


def llava_onevision() -> Parts:
    words = tokenizer("<|im_start|>", "<image>", "<video>", eos="<|im_end|>")
    processor = t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=PINPOINTS),
        words,
        t.LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>\n{{ '' }}", pictures_first=True, **CHATML),
    )
    config = t.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=text(words, "qwen2"),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=PINPOINTS,
    )
    return Parts(t.LlavaOnevisionForConditionalGeneration, config, processor)


def internvl() -> Parts:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer("<|im_start|>", eos="<|im_end|>", **named)
    processor = t.InternVLProcessor(
        t.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        words,
        t.InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>\n{{ '' }}", **CHATML),
    )
    config = t.InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [PATCH, PATCH]},
        text_config=text(words, "qwen2"),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return Parts(t.InternVLForConditionalGeneration, config, processor)


def mistral3() -> Parts:
    words, processor = _pixtral_processor(spatial_merge_size=2)
    config = t.Mistral3Config(
        vision_config=PIXTRAL,
        text_config=text(words, "mistral", head_dim=16),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return Parts(t.Mistral3ForConditionalGeneration, config, processor)


def pixtral() -> Parts:
    words, processor = _pixtral_processor(spatial_merge_size=1)
    config = t.LlavaConfig(
        vision_config=PIXTRAL,
        text_config=text(words, "mistral", head_dim=16),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return Parts(t.LlavaForConditionalGeneration, config, processor)


def aya_vision() -> Parts:
    turn = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>")
    turns = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
    words = tokenizer(*marks, *turns, "TILE", "TILE_GLOBAL", bos="<BOS_TOKEN>", starts=True)
    processor = t.AyaVisionProcessor(
        t.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        words,
        patch_size=PATCH,
        img_size=32,
        downsample_factor=2,
        chat_template=chat(
            "<image>",
            turn=turn.format("USER"),
            end="<|END_OF_TURN_TOKEN|>",
            answer=turn.format("CHATBOT"),
            start="<BOS_TOKEN>",
        ),
    )
    config = t.AyaVisionConfig(
        vision_config=SIGLIP,
        text_config=text(
            words, "cohere2", sliding_window=16, layer_types=["sliding_attention", "full_attention"]
        ),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    return Parts(t.AyaVisionForConditionalGeneration, config, processor)


def gemma3() -> Parts:
    """A picture's tokens see each other, and nothing after them; every other layer slides."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    words = _gemma_words("<start_of_turn>", "<end_of_turn>", **named)
    processor = t.Gemma3Processor(
        t.Gemma3ImageProcessor(size=SQUARE),
        words,
        image_seq_length=4,
        chat_template=chat("<start_of_image>", **GEMMA),
    )
    config = t.Gemma3Config(
        vision_config=SIGLIP,
        text_config=_gemma_text(words, "gemma3_text", query_pre_attn_scalar=16),
        mm_tokens_per_image=4,
        image_token_index=words.image_token_id,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
    )
    return Parts(t.Gemma3ForConditionalGeneration, config, processor)


def gemma4() -> Parts:
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    words = _gemma_words("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|video|>", **named)
    turns = {"turn": "<|turn>ROLE\n", "end": "<turn|>\n", "answer": "<|turn>model\n", "start": "<bos>"}
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
        text_config=_gemma_text(
            words,
            "gemma4_text",
            global_head_dim=16,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=len(words),
        ),
        audio_config=None,
        image_token_id=words.image_token_id,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
        audio_token_id=words.audio_token_id,
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
    )
    return Parts(t.Gemma4ForConditionalGeneration, config, processor)


def lfm2_vl() -> Parts:
    """A language model of short convolutions and attention."""
    marks = ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in (1, 2) for column in (1, 2)]
    words = tokenizer(
        "<|im_start|>", *marks, *tiles, bos="<|startoftext|>", eos="<|im_end|>", image_token="<image>"
    )
    pictures = t.Lfm2VlImageProcessor(
        encoder_patch_size=PATCH,
        tile_size=32,
        size=SQUARE,
        min_image_tokens=2,
        max_image_tokens=4,
        min_tiles=2,
        max_tiles=4,
    )
    processor = t.Lfm2VlProcessor(
        pictures, words, chat_template=chat("<image>", start="<|startoftext|>", **CHATML)
    )
    config = t.Lfm2VlConfig(
        vision_config={**SIGLIP, "model_type": "siglip2_vision_model", "num_patches": 16},
        text_config=text(words, "lfm2", layer_types=["conv", "full_attention"]),
        image_token_id=processor.image_token_id,
        projector_hidden_size=32,
    )
    return Parts(t.Lfm2VlForConditionalGeneration, config, processor)


def paligemma() -> Parts:
    """A prefix-LM without a chat template."""
    words = _gemma_words("<image>")
    pictures = t.SiglipImageProcessor(size=SQUARE)
    pictures.image_seq_length = (32 // PATCH) ** 2
    config = t.PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=_gemma_text(words, "gemma", layer_types=None, sliding_window=None),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return Parts(t.PaliGemmaForConditionalGeneration, config, t.PaliGemmaProcessor(pictures, words))


def _gemma_words(*special: str, **named: str) -> t.PreTrainedTokenizerFast:
    return tokenizer(*special, kind="bare pieces", bos="<bos>", eos="<eos>", starts=True, **named)


def _gemma_text(words: t.PreTrainedTokenizerFast, model_type: str, **more: Any) -> dict[str, Any]:
    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    return {
        k: v for k, v in text(words, model_type, head_dim=16, **{**layers, **more}).items() if v is not None
    }


def _pixtral_processor(spatial_merge_size: int) -> tuple[t.PreTrainedTokenizerFast, t.PixtralProcessor]:
    words = tokenizer("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", starts=True)
    side = PATCH * spatial_merge_size
    template = chat(
        "[IMG]",
        turn="[INST]",
        end="{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}",
        answer="",
        start="<s>",
    )
    processor = t.PixtralProcessor(
        t.PixtralImageProcessor(patch_size={"height": side, "width": side}, size={"longest_edge": 64}),
        words,
        patch_size=PATCH,
        spatial_merge_size=spatial_merge_size,
        chat_template=template,
    )
    return words, processor
