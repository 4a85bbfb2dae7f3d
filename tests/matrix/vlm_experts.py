"""VLMs whose language model is a mixture of experts, each of another family."""

import transformers as t
from vlm_parts import CHATML, PATCH, SLIDING, VISION, Parts, chat, text
from vlm_patches import MROPE, PIXELS
from vlm_tokenizers import tokenizer

EXPERTS = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}


def kimi_k25() -> Parts:
    turns = (
        "<|im_user|>",
        "<|im_assistant|>",
        "<|im_middle|>",
        "<|media_begin|>",
        "<|media_content|>",
        "<|media_end|>",
    )
    words = tokenizer(
        *turns, "<|video|>", eos="<|im_end|>", image_token="<|media_pad|>", video_token="<|video|>"
    )
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


def ernie4_5_vl() -> Parts:
    """Experts for pictures and experts for text."""
    named = {
        "image_token": "<|IMAGE_PLACEHOLDER|>",
        "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>",
        "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>",
        "video_end_token": "<|VIDEO_END|>",
    }
    words = tokenizer(bos="<|begin_of_sentence|>", eos="<|end_of_sentence|>", **named)
    grid = {"patch_size": PATCH, "merge_size": 2, "size": PIXELS}
    processor = t.Ernie4_5_VLMoeProcessor(
        t.Ernie4_5_VLMoeImageProcessor(**grid),
        words,
        t.Ernie4_5_VLMoeVideoProcessor(**grid, draw_on_frames=False),
        chat_template=chat(
            "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
            turn="{{ message['role'] | capitalize }}: ",
            end="\n",
            answer="Assistant: ",
            start="<|begin_of_sentence|>",
        ),
    )
    config = t.Ernie4_5_VLMoeConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "patch_size": PATCH,
        },
        text_config=text(
            words,
            "ernie4_5_vl_moe_text",
            moe_k=2,
            moe_num_experts=4,
            moe_num_shared_experts=1,
            moe_intermediate_size=[16, 16],
            rope_parameters={**MROPE, "mrope_section": [3, 3, 2]},
        ),
        **{f"{name.removesuffix('_token')}_token_id": getattr(words, f"{name}_id") for name in named},
    )
    return Parts(t.Ernie4_5_VLMoeForConditionalGeneration, config, processor)


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


def step3p7() -> Parts:
    marks = ("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")
    words = tokenizer("<|im_start|>", *marks, "<think>", "</think>", eos="<|im_end|>")
    processor = t.Step3p7Processor(
        t.Step3p7ImageProcessor(
            size={"height": 64, "width": 64},
            patch_size=32,
            max_image_size=128,
            vision_patch_size=PATCH,
            downsampler_stride=4,
        ),
        words,
        chat_template=chat(
            "<im_patch>",
            **{**CHATML, "answer": "<|im_start|>assistant\n<think>\n"},
            said="<|im_start|>assistant\n<think>\n\n</think>\n",
        ),
    )
    config = t.Step3p7Config(
        vision_config={**VISION, "image_size": 64, "mlp_ratio": 2.0, "max_position_embeddings": 64},
        text_config=text(
            words,
            "step3p7_text",
            head_dim=16,
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            share_expert_dim=16,
            **SLIDING,
        ),
        image_token_id=words.convert_tokens_to_ids("<im_patch>"),
    )
    return Parts(t.Step3p7ForConditionalGeneration, config, processor)
