"""Further VLMs: variants of the well-known ones, mixtures of experts, readers of documents."""

from typing import Any

import transformers as t
from vlm_parts import CHATML, CLIP, PATCH, PIXTRAL, SIGLIP, SQUARE, VISION, Parts, chat, text
from vlm_patches import GRID, PIXELS
from vlm_tokenizers import tokenizer

EXPERTS = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}


def vip_llava() -> Parts:
    words = tokenizer("<image>", kind="pieces", starts=True)
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat("<image>\n{{ '' }}", turn="###Human: ", end="", answer="###Assistant:"),
    )
    config = t.VipLlavaConfig(
        vision_config=CLIP,
        text_config=text(words, "llama"),
        image_token_index=processor.image_token_id,
        vision_feature_layers=[-1, -2],
        vision_feature_layer=[-1, -2],
    )
    return Parts(t.VipLlavaForConditionalGeneration, config, processor)


def cohere2_vision() -> Parts:
    named = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    turn = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
    turns = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
    words = tokenizer(*turns, bos="<BOS_TOKEN>", starts=True, **named)
    processor = t.Cohere2VisionProcessor(
        t.Cohere2VisionImageProcessor(size=SQUARE, max_patches=4, patch_size=2),
        words,
        chat_template=chat(
            "<|IMG_PATCH|>",
            turn=turn.format("USER"),
            end="<|END_OF_TURN_TOKEN|>",
            answer=turn.format("CHATBOT"),
            start="<BOS_TOKEN>",
        ),
    )
    config = t.Cohere2VisionConfig(
        vision_config=SIGLIP,
        text_config=text(
            words, "cohere2", sliding_window=16, layer_types=["sliding_attention", "full_attention"]
        ),
        image_token_id=processor.image_token_id,
        alignment_intermediate_size=64,
    )
    return Parts(t.Cohere2VisionForConditionalGeneration, config, processor)


def aria() -> Parts:
    words = tokenizer("<|im_start|>", "<fim_prefix>", "<fim_suffix>", eos="<|im_end|>", image_token="<|img|>")
    processor = t.AriaProcessor(
        t.AriaImageProcessor(max_image_size=490, min_image_size=336),
        words,
        size_conversion={490: 4, 980: 8},
        chat_template=chat("<fim_prefix><|img|><fim_suffix>", **CHATML),
    )
    config = t.AriaConfig(
        vision_config={**VISION, "model_type": "idefics3_vision", "image_size": 490, "patch_size": 70},
        text_config=text(words, "aria_text", **EXPERTS),
        projector_patch_to_query_dict={49: 4, 196: 8},
        image_token_index=words.image_token_id,
    )
    return Parts(t.AriaForConditionalGeneration, config, processor)


def llama4() -> Parts:
    marks = (
        "<|header_start|>",
        "<|header_end|>",
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
    )
    tiles = ("<|tile_x_separator|>", "<|tile_y_separator|>")
    words = tokenizer(*marks, *tiles, bos="<|begin_of_text|>", eos="<|eot|>", starts=True)
    header = "<|header_start|>{}<|header_end|>\n\n"
    processor = t.Llama4Processor(
        t.Llama4ImageProcessor(size=SQUARE, max_patches=4),
        words,
        patch_size=PATCH,
        pixel_shuffle_ratio=0.5,
        chat_template=chat(
            "<|image|>",
            turn=header.format("ROLE"),
            end="<|eot|>",
            answer=header.format("assistant"),
            start="<|begin_of_text|>",
        ),
    )
    config = t.Llama4Config(
        vision_config={
            **VISION,
            "intermediate_size": 128,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        text_config=text(
            words,
            "llama4_text",
            head_dim=16,
            intermediate_size_mlp=64,
            num_local_experts=2,
            attention_chunk_size=1024,
        ),
        image_token_index=words.convert_tokens_to_ids("<|patch|>"),
    )
    return Parts(t.Llama4ForConditionalGeneration, config, processor)


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


def lighton_ocr() -> Parts:
    named = {
        "image_token": "<|image_pad|>",
        "image_break_token": "<|vision_pad|>",
        "image_end_token": "<|vision_end|>",
    }
    words = tokenizer("<|im_start|>", eos="<|im_end|>", **named)
    processor = t.LightOnOcrProcessor(
        t.PixtralImageProcessor(patch_size={"height": 16, "width": 16}, size={"longest_edge": 64}),
        words,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=chat("<|image_pad|>", **CHATML),
    )
    config = t.LightOnOcrConfig(
        vision_config=PIXTRAL,
        text_config=text(words, "qwen3", head_dim=16),
        image_token_id=processor.image_token_id,
    )
    return Parts(t.LightOnOcrForConditionalGeneration, config, processor)


def got_ocr2() -> Parts:
    words = tokenizer("<|im_start|>", "<img>", "</img>", "<imgpad>", eos="<|im_end|>")
    processor = t.GotOcr2Processor(
        t.GotOcr2ImageProcessor(size={"height": 64, "width": 64}),
        words,
        chat_template=chat("<img><imgpad></img>\n{{ '' }}", **CHATML),
    )
    config = t.GotOcr2Config(
        vision_config={
            **VISION,
            "image_size": 1024,
            "patch_size": 64,
            "output_channels": 16,
            "mlp_dim": 64,
            "global_attn_indexes": [1],
            "window_size": 2,
        },
        text_config=text(words, "qwen2"),
        image_token_index=processor.image_token_id,
    )
    return Parts(t.GotOcr2ForConditionalGeneration, config, processor)


def paddleocr_vl() -> Parts:
    words = tokenizer(
        "User: ",
        "<|IMAGE_START|>",
        "<|IMAGE_END|>",
        "<|video|>",
        starts=False,
        image_token="<|IMAGE_PLACEHOLDER|>",
    )
    processor = t.PaddleOCRVLProcessor(
        t.PaddleOCRVLImageProcessor(patch_size=PATCH, merge_size=2, size=PIXELS),
        words,
        chat_template=chat(
            "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
            turn="User: ",
            end="\n",
            answer="Assistant:\n",
        ),
    )
    ids = words.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = t.PaddleOCRVLConfig(
        vision_config={**VISION, "spatial_merge_size": 2},
        text_config=text(words, "paddleocr_vl_text", head_dim=16, rope_parameters=rope),
        image_token_id=words.image_token_id,
        video_token_id=ids("<|video|>"),
        vision_start_token_id=ids("<|IMAGE_START|>"),
        vision_end_token_id=ids("<|IMAGE_END|>"),
    )
    return Parts(t.PaddleOCRVLForConditionalGeneration, config, processor)


def video_llama3() -> Parts:
    words = tokenizer(
        "<|im_start|>", "<image>", "<video>", eos="<|im_end|>", image_token="<image>", video_token="<video>"
    )
    grid = {"patch_size": PATCH, "merge_size": 2, "size": PIXELS}
    processor = t.VideoLlama3Processor(
        t.VideoLlama3ImageProcessor(**grid),
        words,
        t.VideoLlama3VideoProcessor(**grid),
        chat_template=chat("<image>\n{{ '' }}", **CHATML),
    )
    config = t.VideoLlama3Config(
        vision_config={k: v for k, v in VISION.items() if k != "image_size"},
        text_config=text(words, "qwen2"),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    return Parts(t.VideoLlama3ForConditionalGeneration, config, processor)


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
        chat_template=chat(
            "<image_placeholder>",
            turn="{{ message['role'] | capitalize }}: ",
            end="\n\n",
            answer="Assistant:",
        ),
    )
    config = t.DeepseekVLConfig(
        vision_config=SIGLIP, text_config=text(words, "llama"), image_token_id=words.image_token_id
    )
    return Parts(t.DeepseekVLForConditionalGeneration, config, processor)


def exaone4_5() -> Parts:
    marks = ("<vision>", "</vision>", "[|user|]", "[|assistant|]", "[|endofturn|]")
    words = tokenizer(*marks, eos="[|endofturn|]", image_token="<|image_pad|>", video_token="<|video_pad|>")
    processor = t.Exaone4_5_Processor(
        t.Qwen2VLImageProcessor(**GRID),
        words,
        t.Qwen2VLVideoProcessor(**GRID),
        chat_template=chat(
            "<vision><|image_pad|></vision>",
            turn="[|ROLE|]\n",
            end="[|endofturn|]\n",
            answer="[|assistant|]\n",
        ),
    )
    config = t.Exaone4_5_Config(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 32,
        },
        text_config=text(
            words,
            "exaone4",
            head_dim=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    return Parts(t.Exaone4_5_ForConditionalGeneration, config, processor)
