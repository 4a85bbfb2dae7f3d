"""What the small VLMs are put together from: sizes, chat templates, and a folder as a hub model has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

PATCH = 8  # pixels
SQUARE = {"height": 32, "width": 32}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": PATCH,
}
CLIP = {**VISION, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
PIXTRAL = {**VISION, "model_type": "pixtral", "head_dim": 16, "image_size": 64}
NATIVE = {  # a tower that takes pictures of any size, as rows of patches
    "depth": 2,
    "num_heads": 2,
    "intermediate_size": 64,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 1024,
}

CHATML = {"turn": "<|im_start|>ROLE\n", "end": "<|im_end|>\n", "answer": "<|im_start|>assistant\n"}
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}


@dataclass(frozen=True)
class Parts:
    """A model's class, its configuration, and its processor."""

    kind: type[PreTrainedModel]
    config: PreTrainedConfig
    processor: ProcessorMixin


def text(words: PreTrainedTokenizerFast, model_type: str, **more: Any) -> dict[str, Any]:
    """The configuration of a language model for these tokens."""
    return {
        "model_type": model_type,
        **TEXT,
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        **more,
    }


def chat(
    picture: str,
    turn: str,
    end: str,
    answer: str,
    *,
    start: str = "",
    said: str | None = None,
    pictures_first: bool = False,
    role: str = "message['role']",
) -> str:
    """A chat template of the shape that VLMs have.

    Args:
        picture: what stands for one.
        turn: what begins a message; ``ROLE`` is who speaks.
        end: what ends a message.
        answer: the generation prompt.
        start: what begins the dialogue.
        said: what goes before the assistant's words in a dialogue, where that is not ``answer``.
        pictures_first: a message's pictures go before all of its text.
        role: Jinja for who speaks.
    """
    parts = "{{% for part in message['content'] if part['type'] == '{0}' %}}{1}{{% endfor %}}"
    words = "{{ part['text'] }}"
    if pictures_first:
        content = parts.format("image", picture) + parts.format("text", words)
    else:
        content = (
            "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
            f"{picture}{{% else %}}{words}{{% endif %}}{{% endfor %}}"
        )
    spoken = turn.replace("ROLE", "{{ " + role + " }}")
    said = answer if said is None else said
    return (
        start + "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        f"{said}{{% else %}}{spoken}{{% endif %}}{content}{end}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


def save(parts: Parts, folder: Path, seed: int = 0) -> Path:
    """Random weights, the configuration and the processor, as `from_pretrained` finds them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = parts.kind(parts.config)
        for name, parameter in model.named_parameters():  # so that answers depend on the picture:
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)  # larger than usual
            elif name.endswith("gate"):
                torch.nn.init.ones_(parameter)  # Mllama's are closed at first
    model.save_pretrained(folder)
    parts.processor.save_pretrained(folder)
    return folder
