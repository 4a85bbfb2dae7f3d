"""VLMs on Pixtral's tower, which takes pictures of any shape, row by row."""

import transformers as t
from vlm_parts import CHATML, PATCH, PIXTRAL, Parts, chat, text
from vlm_tokenizers import tokenizer


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


def mistral3() -> Parts:
    words, processor = _pixtral_processor(spatial_merge_size=2)
    config = t.Mistral3Config(
        vision_config=PIXTRAL,
        text_config=text(words, "mistral", head_dim=16),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return Parts(t.Mistral3ForConditionalGeneration, config, processor)


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


def mistral_large4() -> Parts:
    words, processor = _pixtral_processor(spatial_merge_size=2)
    config = t.MistralLarge4Config(
        vision_config=PIXTRAL,
        text_config=text(
            words,
            "mistral_large4_text",
            num_key_value_heads=2,
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=16,
        ),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
    )
    return Parts(t.MistralLarge4ForConditionalGeneration, config, processor)
