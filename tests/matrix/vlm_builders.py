"""The families of VLMs: how each is built small, and how its answers are expected to be read."""

from collections.abc import Callable
from dataclasses import dataclass

import vlm_further as further
import vlm_new as new
import vlm_patches as patches
import vlm_projected as projected
import vlm_resampled as resampled
from vlm_parts import Parts


@dataclass(frozen=True)
class Family:
    """A family of VLMs, small.

    Attributes:
        build: makes its parts.
        mode: how its answers are read: cache, vision or separate.
        several: it can be shown several pictures at once.
        tensors: its processor takes pictures as tensors, not only its image processor.
        suffix: its processor takes the answer as an argument of that name, not as a message.
    """

    build: Callable[[], Parts]
    mode: str = "cache"
    several: bool = True
    tensors: bool = True
    suffix: bool = False


FAMILIES = {
    "SmolVLM": Family(resampled.smolvlm),
    "Idefics2": Family(resampled.idefics2, tensors=False),
    "Idefics3": Family(resampled.idefics3),
    "Qwen2-VL": Family(patches.qwen2_vl),
    "Qwen2.5-VL": Family(patches.qwen2_5_vl),
    "Qwen3-VL": Family(patches.qwen3_vl),
    "Qwen3.5": Family(patches.qwen3_5),
    "GLM4V": Family(patches.glm4v),
    "LLaVA-1.5": Family(projected.llava),
    "LLaVA-NeXT": Family(projected.llava_next),
    "LLaVA-OneVision": Family(projected.llava_onevision),
    "InternVL": Family(projected.internvl),
    "Mistral3": Family(projected.mistral3),
    "Pixtral": Family(projected.pixtral),
    "AyaVision": Family(projected.aya_vision),
    "Gemma3": Family(projected.gemma3),
    "Gemma4": Family(projected.gemma4),
    "LFM2-VL": Family(projected.lfm2_vl),
    "Mllama": Family(resampled.mllama),
    "PaliGemma": Family(projected.paligemma, mode="vision", suffix=True),
    "ViP-LLaVA": Family(further.vip_llava),
    "Cohere2-Vision": Family(further.cohere2_vision),
    "Aria": Family(further.aria),
    "Llama4": Family(further.llama4),
    "Ovis2": Family(further.ovis2),
    "LightOnOCR": Family(further.lighton_ocr),
    "GOT-OCR2": Family(further.got_ocr2),
    "PaddleOCR-VL": Family(further.paddleocr_vl),
    "VideoLLaMA3": Family(further.video_llama3),
    "Janus": Family(further.janus),
    "DeepSeek-VL": Family(further.deepseek_vl),
    "EXAONE-4.5": Family(further.exaone4_5),
    "Qwen3-VL-MoE": Family(patches.qwen3_vl_moe),
    "Qwen3.5-MoE": Family(patches.qwen3_5_moe),
    "GLM-4.6V": Family(patches.glm46v),
    "GLM4V-MoE": Family(patches.glm4v_moe),
    "Molmo2": Family(new.molmo2),
    "MiniCPM-V-4.6": Family(new.minicpmv4_6),
    "Kimi-K2.5": Family(new.kimi_k25),
    "BLIP-2": Family(new.blip2, mode="separate", several=False),
    "Kosmos-2": Family(new.kosmos2, mode="separate", several=False),
    "Chameleon": Family(new.chameleon),
    "Florence-2": Family(new.florence2),
    "LLaVA-NeXT-Video": Family(new.llava_next_video),
    "HunYuan-VL": Family(new.hunyuan_vl),
}
