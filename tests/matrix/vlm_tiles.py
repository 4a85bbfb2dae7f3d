"""VLMs that are shown a picture as tiles, or padded to a square."""

import transformers as t
from vlm_parts import CHATML, PATCH, SIGLIP, SLIDING, SQUARE, VISION, Parts, chat, text
from vlm_tokenizers import tokenizer

COHERE = {
    "turn": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    "end": "<|END_OF_TURN_TOKEN|>",
    "answer": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "start": "<BOS_TOKEN>",
}
COHERE_TURNS = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
DEEPSEEK = {"turn": "{{ message['role'] | capitalize }}: ", "end": "\n\n", "answer": "Assistant:"}


def aya_vision() -> Parts:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>")
    words = tokenizer(*marks, *COHERE_TURNS, "TILE", "TILE_GLOBAL", bos="<BOS_TOKEN>", starts=True)
    processor = t.AyaVisionProcessor(
        t.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        words,
        patch_size=PATCH,
        img_size=32,
        downsample_factor=2,
        chat_template=chat("<image>", **COHERE),
    )
    config = t.AyaVisionConfig(
        vision_config=SIGLIP,
        text_config=text(words, "cohere2", **SLIDING),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    return Parts(t.AyaVisionForConditionalGeneration, config, processor)


def cohere2_vision() -> Parts:
    named = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    words = tokenizer(*COHERE_TURNS, bos="<BOS_TOKEN>", starts=True, **named)
    processor = t.Cohere2VisionProcessor(
        t.Cohere2VisionImageProcessor(size=SQUARE, max_patches=4, patch_size=2),
        words,
        chat_template=chat("<|IMG_PATCH|>", **COHERE),
    )
    config = t.Cohere2VisionConfig(
        vision_config=SIGLIP,
        text_config=text(words, "cohere2", **SLIDING),
        image_token_id=processor.image_token_id,
        alignment_intermediate_size=64,
    )
    return Parts(t.Cohere2VisionForConditionalGeneration, config, processor)


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


def ovis2() -> Parts:
    marks = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    words = tokenizer("<|im_start|>", "<image>", "<IMG_ATOM>", *marks, eos="<|im_end|>")
    processor = t.Ovis2Processor(
        t.Ovis2ImageProcessor(size=SQUARE),
        words,
        image_seq_length=4,
        chat_template=chat("<image>\n{{ '' }}", **CHATML),
    )
    config = t.Ovis2Config(
        vision_config={**VISION, "vocab_size": 40, "hidden_stride": 2},
        text_config=text(words, "qwen2"),
        vocab_size=len(words),
        hidden_size=32,
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(marks),
    )
    return Parts(t.Ovis2ForConditionalGeneration, config, processor)


def molmo2() -> Parts:
    marks = [
        "<im_start>",
        "<low_res_im_start>",
        "<im_end>",
        "<im_patch>",
        "<im_col>",
        "<frame_start>",
        "<frame_end>",
    ]
    words = tokenizer("<|im_start|>", "<im_low>", "<|image|>", "<|video|>", *marks, eos="<|im_end|>")
    sizes = {"patch_size": PATCH, "pooling_size": [2, 2]}
    processor = t.Molmo2Processor(
        t.Molmo2ImageProcessor(size=SQUARE, max_crops=4, overlap_margins=[1, 1], **sizes),
        t.Molmo2VideoProcessor(size=SQUARE, **sizes),
        words,
        chat_template=chat("<|image|>", **CHATML),
    )
    ids = dict(zip(marks, words.convert_tokens_to_ids(marks), strict=True))
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = t.Molmo2Config(
        vision_config={**VISION, **heads, "image_size": [32, 32], "num_position_embeddings": 16},
        adapter_config={
            **heads,
            "vision_feature_layer": [-1, -2],
            "hidden_size": 32,
            "intermediate_size": 64,
            "text_hidden_size": 32,
        },
        text_config=text(words, "molmo2_text", head_dim=16, additional_vocab_size=8),
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    return Parts(t.Molmo2ForConditionalGeneration, config, processor)


def janus() -> Parts:
    named = {
        "image_token": "<image_placeholder>",
        "boi_token": "<begin_of_image>",
        "eoi_token": "<end_of_image>",
    }
    words = tokenizer(bos="<|begin|>", eos="<|end|>", starts=True, **named)
    processor = t.JanusProcessor(
        t.JanusImageProcessor(size=SQUARE, min_size=14),
        words,
        num_image_tokens=16,
        chat_template=chat(
            "<image_placeholder>\n{{ '' }}",
            turn="<|{{ message['role'] | capitalize }}|>: ",
            end="\n\n",
            answer="<|Assistant|>:",
        ),
    )
    config = t.JanusConfig(
        vision_config={**VISION, "projection_dim": 32, "mlp_ratio": 2.0, "num_image_tokens": 16},
        text_config=text(words, "llama"),
        vq_config={
            "embed_dim": 4,
            "num_embeddings": 8,
            "latent_channels": 8,
            "base_channels": 32,
            "channel_multiplier": [1],
            "num_res_blocks": 1,
            "num_patches": 4,
            "projection_dim": 32,
            "image_token_embed_dim": 32,
        },
        image_token_id=words.image_token_id,
    )
    return Parts(t.JanusForConditionalGeneration, config, processor)


def deepseek_vl() -> Parts:
    words = tokenizer(
        "User", "Assistant", bos="<|begin|>", eos="<|end|>", starts=True, image_token="<image_placeholder>"
    )
    processor = t.DeepseekVLProcessor(
        t.DeepseekVLImageProcessor(size=SQUARE, min_size=14),
        words,
        num_image_tokens=16,
        chat_template=chat("<image_placeholder>", **DEEPSEEK),
    )
    config = t.DeepseekVLConfig(
        vision_config=SIGLIP, text_config=text(words, "llama"), image_token_id=words.image_token_id
    )
    return Parts(t.DeepseekVLForConditionalGeneration, config, processor)


def deepseek_vl_hybrid() -> Parts:
    """Two towers, for the whole picture and for its details."""
    words = tokenizer(
        "User", "Assistant", bos="<|begin|>", eos="<|end|>", starts=True, image_token="<image_placeholder>"
    )
    processor = t.DeepseekVLHybridProcessor(
        t.DeepseekVLHybridImageProcessor(
            size=SQUARE, high_res_size={"height": 128, "width": 128}, min_size=14
        ),
        words,
        num_image_tokens=16,
        chat_template=chat("<image_placeholder>", **DEEPSEEK),
    )
    config = t.DeepseekVLHybridConfig(
        vision_config=SIGLIP,
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "output_channels": 16,
            "image_size": 128,
            "patch_size": 8,
            "mlp_dim": 64,
            "global_attn_indexes": [1],
            "window_size": 2,
        },
        text_config=text(words, "llama"),
        image_token_id=words.image_token_id,
    )
    return Parts(t.DeepseekVLHybridForConditionalGeneration, config, processor)
