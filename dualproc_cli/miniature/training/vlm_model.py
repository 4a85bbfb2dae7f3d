"""The miniature's VLM before training: an Idefics3 of two million parameters, with its processor."""

from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from dualproc_cli.miniature.training.tokenizer import word_tokenizer
from dualproc_cli.miniature.world.captions import WORDS
from dualproc_cli.miniature.world.language import WORDINGS
from dualproc_cli.miniature.world.questions import UNCLEAR
from dualproc_cli.miniature.world.scene import SIZE

WIDTH = 160  # features of a token, in both towers
PATCH, SHUFFLE = 8, 2  # side of a patch in pixels, and of a picture token in patches
IMAGE_TOKENS = (SIZE // PATCH // SHUFFLE) ** 2
SPECIAL = [
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<user>",
    "<assistant>",
]
ANSWERS = ["yes", "no", "day", "night", "winter", "summer", "one", "two", "and", UNCLEAR]
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of all questions, answers and prompts."""
    texts = [wording.text for wording in WORDINGS] + list(WORDS) + ANSWERS
    return word_tokenizer(texts, SPECIAL, max_length=256)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """Build the processor: pictures at 64x64 in [-1, 1], questions by CHAT_TEMPLATE."""
    side = {"longest_edge": SIZE}
    image_processor = Idefics3ImageProcessor(
        size=side, max_image_size=side, do_image_splitting=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return Idefics3Processor(
        image_processor, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Idefics3ForConditionalGeneration:
    """Build the VLM with random weights."""
    size = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": WIDTH // 32}
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    options: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "tie_word_embeddings": True}
    config = Idefics3Config(
        vision_config={**size, "num_hidden_layers": 4, "patch_size": PATCH, "image_size": SIZE},
        text_config={
            **size,
            "model_type": "llama",
            "num_hidden_layers": 3,
            "num_key_value_heads": WIDTH // 32,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "rope_theta": 1000.0,
            "tie_word_embeddings": True,
            **special,
        },
        scale_factor=SHUFFLE,
        image_token_id=tokenizer.get_vocab()["<image>"],
        **options,
    )
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
