"""Further VLMs whose towers take pictures of any size as rows of patches."""

import transformers as t
from vlm_parts import CHATML, PATCH, SLIDING, VISION, Parts, chat, text
from vlm_patches import GRID, MROPE, PIXELS
from vlm_tokenizers import tokenizer


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
            **SLIDING,
        ),
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    return Parts(t.Exaone4_5_ForConditionalGeneration, config, processor)


def minicpmv4_6() -> Parts:
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    words = tokenizer("<|im_start|>", eos="<|im_end|>", **named)
    sizes = {"scale_resolution": 64, "patch_size": PATCH, "max_slice_nums": 4}
    processor = t.MiniCPMV4_6Processor(
        t.MiniCPMV4_6ImageProcessor(**sizes),
        t.MiniCPMV4_6VideoProcessor(**sizes),
        words,
        chat_template=chat("<|image_pad|>", **CHATML),
    )
    config = t.MiniCPMV4_6Config(
        vision_config={**VISION, "image_size": 64, "insert_layer_id": 0},
        text_config=text(words, "qwen3", head_dim=16),
        insert_layer_id=0,
        image_size=64,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    return Parts(t.MiniCPMV4_6ForConditionalGeneration, config, processor)


def hunyuan_vl() -> Parts:
    named = {"image_token": "<image>", "image_start_token": "<img_start>", "image_end_token": "<img_end>"}
    words = tokenizer("<hy_User>", "<hy_Assistant>", bos="<hy_begin>", **named)
    processor = t.HunYuanVLProcessor(
        t.HunYuanVLImageProcessor(patch_size=PATCH, merge_size=2, size=PIXELS),
        words,
        chat_template=chat(
            "<img_start><image><img_end>", turn="", end="<hy_User>", answer="", start="<hy_begin>"
        ),
    )
    config = t.HunYuanVLConfig(
        vision_config={
            **{k: v for k, v in VISION.items() if k != "image_size"},
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "text_hidden_size": 32,
            "max_image_size": 64,
            "min_image_size": 16,
        },
        text_config=text(
            words, "hunyuan_vl_text", head_dim=16, rope_parameters={**MROPE, "mrope_section": [2, 2, 2, 2]}
        ),
        image_token_id=words.image_token_id,
        im_start_id=words.image_start_token_id,
        im_end_id=words.image_end_token_id,
        im_newline_id=words.image_token_id,
    )
    return Parts(t.HunYuanVLForConditionalGeneration, config, processor)


def lfm3_vl() -> Parts:
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    words = tokenizer("<|im_start|>", "<|vision_start|>", "<|vision_end|>", eos="<|im_end|>", **named)
    processor = t.Lfm3VlProcessor(
        t.Qwen2VLImageProcessor(**GRID),
        words,
        t.Qwen3VLVideoProcessor(**GRID),
        chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>", **CHATML),
    )
    config = t.Lfm3VlConfig(
        vision_config={
            **{k: v for k, v in VISION.items() if k != "image_size"},
            "num_key_value_heads": 1,
            "layer_types": ["conv", "full_attention"],
        },
        text_config=text(words, "lfm3", layer_types=["conv", "full_attention"]),
        projector_hidden_size=32,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
    )
    return Parts(t.Lfm3VlForConditionalGeneration, config, processor)


def muse_glimmer() -> Parts:
    marks = ("<|patch|>", "<|image_start|>", "<|image_end|>", "<|video|>", "<|vid_frame_separator|>")
    words = tokenizer(
        *marks, "<|vid_start|>", "<|vid_end|>", "<|header_start|>", "<|header_end|>", eos="<|eot|>"
    )
    header = "<|header_start|>{}<|header_end|>\n\n"
    grid = {"patch_size": PATCH, "merge_size": 2}
    processor = t.MuseGlimmerProcessor(
        t.MuseGlimmerImageProcessor(**grid, max_image_tokens=16),
        t.MuseGlimmerVideoProcessor(**grid),
        words,
        chat_template=chat(
            "<|patch|>", turn=header.format("ROLE"), end="<|eot|>", answer=header.format("assistant")
        ),
    )
    config = t.MuseGlimmerConfig(
        vision_config={
            **{k: v for k, v in VISION.items() if k != "image_size"},
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "max_position_embeddings": 64,
        },
        text_config=text(words, "muse_glimmer_text", head_dim=16, **SLIDING),
        out_hidden_size=128,
        projector_hidden_size=32,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    return Parts(t.MuseGlimmerForConditionalGeneration, config, processor)
