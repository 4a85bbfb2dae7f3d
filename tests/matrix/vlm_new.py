"""Mixtures of experts, and what is neither a projector, a row of patches nor a resampler."""

from typing import Any

import transformers as t
from vlm_parts import CHATML, CLIP, NATIVE, PATCH, PIXTRAL, SIGLIP, SQUARE, VISION, Parts, chat, text
from vlm_patches import GRID, MROPE, PIXELS
from vlm_tokenizers import tokenizer


def molmo2() -> Parts:
    marks = ["<im_start>", "<low_res_im_start>", "<im_end>", "<im_patch>", "<im_col>", "<frame_start>", "<frame_end>"]
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


def kimi_k25() -> Parts:
    turns = ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|media_begin|>", "<|media_content|>", "<|media_end|>")
    words = tokenizer(*turns, "<|video|>", eos="<|im_end|>", image_token="<|media_pad|>", video_token="<|video|>")
    sizes = {"patch_size": PATCH, "merge_size": 2, "size": {"max_height": 64, "max_width": 64}}
    thought = "{% if thinking is defined and thinking is false %}<think></think>{% else %}<think>{% endif %}"
    processor = t.Kimi_K25Processor(
        t.Kimi_K25ImageProcessor(**sizes),
        words,
        t.Kimi_K25VideoProcessor(**sizes),
        chat_template=chat(
            "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n{{ '' }}",
            turn="<|im_ROLE|>ROLE<|im_middle|>",
            end="<|im_end|>",
            answer=f"<|im_assistant|>assistant<|im_middle|>{thought}",
            said="<|im_assistant|>assistant<|im_middle|><think></think>",
        ),
    )
    config = t.Kimi_K25Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
        },
        text_config=text(
            words,
            "deepseek_v3",
            num_key_value_heads=2,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            moe_intermediate_size=16,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=16,
        ),
        projection_hidden_size=32,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    return Parts(t.Kimi_K25ForConditionalGeneration, config, processor)


def blip2() -> Parts:
    """A Q-Former's queries stand before the text; the processor puts them there, no template does."""
    words = tokenizer("<image>", starts=True)
    processor = t.Blip2Processor(t.BlipImageProcessor(size=SQUARE), words, num_query_tokens=4)
    config = t.Blip2Config(
        vision_config=VISION,
        qformer_config={
            **{k: v for k, v in VISION.items() if k not in ("image_size", "patch_size")},
            "encoder_hidden_size": 32,
            "vocab_size": 10,
        },
        text_config=text(words, "opt", word_embed_proj_dim=32, ffn_dim=64),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return Parts(t.Blip2ForConditionalGeneration, config, processor)


def kosmos2() -> Parts:
    words = tokenizer(starts=True)
    processor = t.Kosmos2Processor(
        t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), words, num_patch_index_tokens=4
    )
    config = t.Kosmos2Config(
        vision_config=CLIP,
        text_config={
            "vocab_size": len(words),
            "embed_dim": 32,
            "layers": 2,
            "dropout": 0.0,
            "ffn_dim": 64,
            "attention_heads": 2,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
        },
        latent_query_num=64,  # as many as the processor makes room for
    )
    return Parts(t.Kosmos2ForConditionalGeneration, config, processor)


def chameleon() -> Parts:
    """Pictures become tokens of a codebook."""
    words = tokenizer("<image>", "<racm3:break>", "<eoss>", "<reserved08706>", starts=True)
    words.sep_token = "<reserved08706>"
    processor = t.ChameleonProcessor(
        t.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), words, image_seq_length=4
    )
    config = t.ChameleonConfig(
        **{k: v for k, v in text(words, "chameleon").items() if k != "model_type"},
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 8,
            "latent_channels": 8,
            "resolution": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1, 1],
            "num_res_blocks": 1,
        },
        vocabulary_map={"<image>": words.convert_tokens_to_ids("<image>"), **{f"IMGIMG{c}Z": i for i, c in enumerate("ABCDEFGH", 10)}},
    )
    return Parts(t.ChameleonForConditionalGeneration, config, processor)


def florence2() -> Parts:
    """An encoder reads picture and question, a decoder writes the answer."""
    words = tokenizer(image_token="<image>")
    pictures = t.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    pictures.image_seq_length = 17
    processor = t.Florence2Processor(pictures, words)
    config = t.Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": 32,
        },
        text_config=text(words, "bart", d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32),
        image_token_id=words.image_token_id,
    )
    return Parts(t.Florence2ForConditionalGeneration, config, processor)


def llava_next_video() -> Parts:
    from vlm_projected import CROP, PINPOINTS, VICUNA

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


def hunyuan_vl() -> Parts:
    named = {"image_token": "<image>", "image_start_token": "<img_start>", "image_end_token": "<img_end>"}
    words = tokenizer("<hy_User>", "<hy_Assistant>", bos="<hy_begin>", **named)
    processor = t.HunYuanVLProcessor(
        t.HunYuanVLImageProcessor(patch_size=PATCH, merge_size=2, size=PIXELS),
        words,
        chat_template=chat("<img_start><image><img_end>", turn="", end="<hy_User>", answer="", start="<hy_begin>"),
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
