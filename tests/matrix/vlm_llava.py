"""LLaVA and its kin: what a vision tower sees, projected into the embeddings of a language model."""

import transformers as t
from vlm_parts import CHATML, CLIP, PATCH, SIGLIP, SQUARE, VISION, Parts, chat, text
from vlm_tokenizers import tokenizer

PINPOINTS = [[32, 64], [64, 32], [64, 64]]  # tilings of a picture
CROP = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
VICUNA = {
    "turn": "{{ message['role'] | upper }}: ",
    "end": " ",
    "answer": "ASSISTANT:",
    "said": "ASSISTANT: ",
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


def llava_next_video() -> Parts:
    words = tokenizer("<image>", "<video>", kind="pieces", starts=True)
    processor = t.LlavaNextVideoProcessor(
        t.LlavaNextVideoVideoProcessor(**CROP),
        t.LlavaNextImageProcessor(**CROP, image_grid_pinpoints=PINPOINTS),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat("<image>\n{{ '' }}", pictures_first=True, **VICUNA),
    )
    config = t.LlavaNextVideoConfig(
        vision_config=CLIP,
        text_config=text(words, "llama"),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    return Parts(t.LlavaNextVideoForConditionalGeneration, config, processor)


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


def granite4_vision() -> Parts:
    """A Q-Former on windows of what the tower sees, at several depths of both."""
    words = tokenizer("<image>", "<|start_of_role|>", "<|end_of_role|>", eos="<|end_of_text|>")
    turn = "<|start_of_role|>{}<|end_of_role|>"
    processor = t.Granite4VisionProcessor(
        t.LlavaNextImageProcessor(**CROP, image_grid_pinpoints=PINPOINTS),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        chat_template=chat(
            "<image>\n{{ '' }}",
            turn=turn.format("ROLE"),
            end="<|end_of_text|>\n",
            answer=turn.format("assistant"),
        ),
    )
    config = t.Granite4VisionConfig(
        vision_config={**SIGLIP, "hidden_size": 64},
        text_config=text(words, "granite4_vision_text"),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        image_grid_pinpoints=PINPOINTS,
        downsample_rate="1/2",
        deepstack_layer_map=[[-1, 0]],
        spatial_target_layers=[1, 1, 1, 1],
    )
    return Parts(t.Granite4VisionForConditionalGeneration, config, processor)


def qianfan_ocr() -> Parts:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
    }
    words = tokenizer("<|im_start|>", "<image>", "<think>", "</think>", eos="<|im_end|>", **named)
    processor = t.QianfanOCRProcessor(
        t.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        words,
        image_seq_length=4,
        chat_template=chat("<image>\n{{ '' }}", **CHATML),
    )
    config = t.QianfanOCRConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [PATCH, PATCH]},
        text_config=text(words, "qwen3", head_dim=16),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return Parts(t.QianfanOCRForConditionalGeneration, config, processor)
