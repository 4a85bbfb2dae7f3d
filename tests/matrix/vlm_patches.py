"""VLMs whose towers take pictures of any size as rows of patches, with rotary positions of three axes."""

from typing import Any

import transformers as t
from vlm_parts import NATIVE, PATCH, Parts, chat, text
from vlm_tokenizers import tokenizer

PIXELS = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
GRID = {"patch_size": PATCH, "merge_size": 2, "size": PIXELS}
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
LINEAR = {
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {
        **MROPE,
        "mrope_section": [1, 1, 2],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.5,
    },
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
THOUGHT = (
    "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)


def qwen2_vl() -> Parts:
    return _qwen(
        "Qwen2VL",
        vision={**NATIVE, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
        language={"rope_parameters": MROPE},
        template=_qwen_chat(start=SYSTEM),
    )


def qwen2_5_vl() -> Parts:
    windows = {"fullatt_block_indexes": [1], "window_size": 32}
    return _qwen(
        "Qwen2_5_VL",
        vision={**NATIVE, "hidden_size": 32, "out_hidden_size": 32, **windows},
        language={"rope_parameters": MROPE},
        template=_qwen_chat(start=SYSTEM),
    )


def qwen3_vl() -> Parts:
    return _qwen(
        "Qwen3VL",
        vision=_deepstack([0]),
        language={"head_dim": 16, "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        template=_qwen_chat(),
    )


def qwen3_5() -> Parts:
    """Linear attention in every layer but the last; its template opens a thought."""
    return _qwen(
        "Qwen3_5",
        processor=t.Qwen3VLProcessor,
        vision=_deepstack(None),
        language=LINEAR,
        template=_qwen_chat(THOUGHT, said="<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    )


def glm4v() -> Parts:
    return _glm("Glm4v", t.Glm4vConfig, {"rope_parameters": MROPE})


def glm46v() -> Parts:
    return _glm(
        "Glm46V",
        t.Glm46VConfig,
        {"rope_parameters": MROPE},
        language_type="glm4v_text",
        vision_type="glm4v_vision",
    )


def glm4v_moe() -> Parts:
    experts = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "rope_parameters": {**MROPE, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5},
    }
    return _glm("Glm4v", t.Glm4vMoeConfig, experts, model=t.Glm4vMoeForConditionalGeneration)


def qwen3_vl_moe() -> Parts:
    return _qwen(
        "Qwen3VLMoe",
        processor=t.Qwen3VLProcessor,
        vision=_deepstack([0]),
        language={"head_dim": 16, "rope_parameters": {**MROPE, "mrope_interleaved": True}, **EXPERTS},
        template=_qwen_chat(),
    )


def qwen3_5_moe() -> Parts:
    return _qwen(
        "Qwen3_5Moe",
        processor=t.Qwen3VLProcessor,
        vision=_deepstack(None),
        language={**LINEAR, **EXPERTS, "shared_expert_intermediate_size": 16},
        template=_qwen_chat(THOUGHT, said="<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    )


def glm_ocr() -> Parts:
    return _glm(
        "Glm46V",
        t.GlmOcrConfig,
        {"head_dim": 16, "rope_parameters": MROPE},
        model=t.GlmOcrForConditionalGeneration,
    )


def _deepstack(indexes: list[int] | None) -> dict[str, Any]:
    more = {} if indexes is None else {"deepstack_visual_indexes": indexes}
    return {**NATIVE, "hidden_size": 32, "out_hidden_size": 32, "num_position_embeddings": 64, **more}


def _qwen_chat(answer: str = "<|im_start|>assistant\n", **more: Any) -> str:
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    return chat(picture, turn="<|im_start|>ROLE\n", end="<|im_end|>\n", answer=answer, **more)


def _qwen(
    family: str,
    vision: dict[str, Any],
    language: dict[str, Any],
    template: str,
    processor: type | None = None,
) -> Parts:
    words = tokenizer("<|im_start|>", "<think>", "</think>", *VISION, eos="<|im_end|>")
    pictures = t.Qwen2VLImageProcessor(**GRID)
    videos = (t.Qwen3VLVideoProcessor if "3" in family else t.Qwen2VLVideoProcessor)(**GRID)
    start, end, image, video = words.convert_tokens_to_ids(list(VISION))
    kind = getattr(t, f"{family}Config")
    config = kind(
        vision_config=vision,
        text_config=text(words, f"{kind.model_type}_text", **language),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    processor = processor or getattr(t, f"{family}Processor")
    model = getattr(t, f"{family}ForConditionalGeneration")
    return Parts(model, config, processor(pictures, words, videos, chat_template=template))


def _glm(
    family: str,
    kind: type,
    language: dict[str, Any],
    model: type | None = None,
    language_type: str | None = None,
    vision_type: str | None = None,
) -> Parts:
    names = ("image", "video")
    marks = [f"<|{edge}_of_{name}|>" for name in names for edge in ("begin", "end")]
    words = tokenizer("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", *marks, "<|image|>", "<|video|>")
    template = chat(
        "<|begin_of_image|><|image|><|end_of_image|>",
        turn="<|ROLE|>\n",
        end="",
        answer="<|assistant|>\n",
        start="[gMASK]<sop>",
    )
    part = lambda name: getattr(t, family + name)  # noqa: E731
    processor = part("Processor")(
        part("ImageProcessor")(**GRID), words, part("VideoProcessor")(**GRID), chat_template=template
    )
    ids = words.convert_tokens_to_ids
    sides = (("start", "begin"), ("end", "end"))
    vision = {**NATIVE, "hidden_size": 32, "out_hidden_size": 32, "image_size": 64}
    if vision_type is not None:
        vision["model_type"] = vision_type
    config = kind(
        vision_config=vision,
        text_config=text(words, language_type or f"{kind.model_type}_text", **language),
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        **{f"{name}_{side}_token_id": ids(f"<|{mark}_of_{name}|>") for name in names for side, mark in sides},
    )
    return Parts(model or part("ForConditionalGeneration"), config, processor)
