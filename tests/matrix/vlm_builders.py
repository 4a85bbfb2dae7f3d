"""The families of VLMs: how each is built small, and how its answers are expected to be read."""

from collections.abc import Callable
from dataclasses import dataclass

import vlm_experts as experts
import vlm_gemma as gemma
import vlm_llava as llava
import vlm_native as native
import vlm_patches as patches
import vlm_pixtral as pixtral
import vlm_resampled as resampled
import vlm_tiles as tiles
import vlm_timm as timm
from vlm_parts import Parts


@dataclass(frozen=True)
class Family:
    """A family of VLMs, small.

    Attributes:
        build: makes its parts.
        mode: how its answers are read: cache, vision or separate.
        several: it can be shown several pictures at once.
        tensors: its processor takes pictures as tensors, not only its image processor.
        needs: a package that its classes need and transformers does not bring.
        rounding: by how much losses and gradients may differ in float32, relative to the largest.
        suffix: its processor takes the answer as an argument of that name, not as a message.
    """

    build: Callable[[], Parts]
    mode: str = "cache"
    several: bool = True
    tensors: bool = True
    needs: str | None = None
    rounding: float = 1e-4
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
    "LLaVA-1.5": Family(llava.llava),
    "LLaVA-NeXT": Family(llava.llava_next),
    "LLaVA-OneVision": Family(llava.llava_onevision),
    "InternVL": Family(llava.internvl),
    "Mistral3": Family(pixtral.mistral3),
    "Pixtral": Family(pixtral.pixtral),
    "AyaVision": Family(tiles.aya_vision),
    "Gemma3": Family(gemma.gemma3),
    "Gemma4": Family(gemma.gemma4),
    "LFM2-VL": Family(tiles.lfm2_vl),
    "Mllama": Family(resampled.mllama),
    "PaliGemma": Family(gemma.paligemma, mode="vision", suffix=True),
    "ViP-LLaVA": Family(llava.vip_llava),
    "Cohere2-Vision": Family(tiles.cohere2_vision),
    "Aria": Family(experts.aria),
    "Ovis2": Family(tiles.ovis2),
    "LightOnOCR": Family(pixtral.lighton_ocr),
    "PaddleOCR-VL": Family(native.paddleocr_vl),
    "VideoLLaMA3": Family(native.video_llama3),
    "Janus": Family(tiles.janus),
    "DeepSeek-VL": Family(tiles.deepseek_vl),
    "EXAONE-4.5": Family(native.exaone4_5),
    "Qwen3-VL-MoE": Family(patches.qwen3_vl_moe),
    "Qwen3.5-MoE": Family(patches.qwen3_5_moe),
    "GLM-4.6V": Family(patches.glm46v),
    "GLM4V-MoE": Family(patches.glm4v_moe),
    "Molmo2": Family(tiles.molmo2),
    "MiniCPM-V-4.6": Family(native.minicpmv4_6),
    "Kimi-K2.5": Family(experts.kimi_k25),
    "BLIP-2": Family(resampled.blip2, mode="separate", several=False),
    "InstructBLIP": Family(resampled.instructblip, mode="separate", several=False),
    "Kosmos-2": Family(resampled.kosmos2, mode="separate", several=False),
    "LLaVA-NeXT-Video": Family(llava.llava_next_video),
    "HunYuan-VL": Family(native.hunyuan_vl, mode="cache, picture by picture"),
    "ERNIE-4.5-VL": Family(experts.ernie4_5_vl),
    "LFM3-VL": Family(native.lfm3_vl),
    "DeepSeek-VL-Hybrid": Family(tiles.deepseek_vl_hybrid),
    "Step3.7": Family(experts.step3p7),
    "Gemma4-Unified": Family(gemma.gemma4_unified),
    "Mistral-Large4": Family(pixtral.mistral_large4),
    "Granite4-Vision": Family(llava.granite4_vision, mode="separate"),
    "GLM-OCR": Family(patches.glm_ocr),
    "FastVLM": Family(timm.fast_vlm, needs="timm", rounding=1e-3),
    "Gemma3n": Family(timm.gemma3n, needs="timm"),
    "Qianfan-OCR": Family(llava.qianfan_ocr),
    "Muse-Glimmer": Family(native.muse_glimmer),
}
