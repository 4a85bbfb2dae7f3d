"""Small randomly initialised VLMs of real classes, saved as folders that `AutoModelForImageTextToText` and
`AutoProcessor` load. They know nothing; the tests are about the numbers, not the answers."""

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GemmaConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

SIZE = 64  # pixels
PATCH = 8
TEXT = """
Is there a house in the picture? Is the horizon at the red line? Does the horizon lie on the red line? What
is shown? Do the colors match the palette? Are the outlines as thick as the red line? Is point A closer than
point B? Is the tree bare? Is the lamp lit? Is the house inside the red box? Does the tree look right for
winter? What time is it? How many subjects are there? Is it night? Yes No yes no night day one two a an
house tree lamp ball with by of and red tall small object Is this picture like the painting
"""
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<image>", "<user>", "<assistant>"]
TEMPLATE = (
    "<bos>{% for message in messages %}<{{ message['role'] }}> {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<PICTURE>{% else %} {{ part['text'] }}{% endif %}{% endfor %}<eos> "
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of `TEXT`; `special` tokens are added to `SPECIAL`."""
    words = dict.fromkeys([*SPECIAL, *special, *re.findall(r"\w+|[^\w\s]+", TEXT)])
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[*SPECIAL[4:], *special],
    )


def make_vlm(folder: Path, seed: int = 0) -> Path:
    """A tiny Idefics3 for 64x64 pictures (16 visual tokens), the class of the miniature."""
    words = tokenizer("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    pictures = Idefics3ImageProcessor(
        size={"longest_edge": SIZE}, max_image_size={"longest_edge": SIZE}, do_image_splitting=False
    )
    processor = Idefics3Processor(pictures, words, image_seq_len=16, chat_template=_template("<image>"))
    config = Idefics3Config(
        vision_config={**VISION, "image_size": SIZE},
        text_config=_llama(words).to_dict(),
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=False,
    )
    return _save(folder, Idefics3ForConditionalGeneration, config, processor, seed)


def make_llava(folder: Path, seed: int = 0) -> Path:
    """A tiny LLaVA with a SigLIP tower."""
    words = tokenizer()
    pictures = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    processor = LlavaProcessor(
        pictures,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=SIZE, vision_use_head=False),
        text_config=_llama(words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return _save(folder, LlavaForConditionalGeneration, config, processor, seed)


def make_qwen(folder: Path, seed: int = 0) -> Path:
    """A tiny Qwen2.5-VL: rotary positions of three axes, pictures as rows of patches."""
    vision = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*vision)
    pictures = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, min_pixels=256, max_pixels=SIZE * SIZE)
    videos = Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=2)
    template = _template("<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2_5_VLProcessor(pictures, words, videos, chat_template=template)
    start, end, image, video = words.convert_tokens_to_ids(list(vision))
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 32,
        },
        text_config={
            **_llama(words).to_dict(),
            "model_type": "qwen2_5_vl_text",
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return _save(folder, Qwen2_5_VLForConditionalGeneration, config, processor, seed)


def make_paligemma(folder: Path, seed: int = 0) -> Path:
    """A tiny PaliGemma: a prefix-LM, whose picture keys depend on the question, without a chat template."""
    words = tokenizer()
    pictures = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    pictures.image_seq_length = (SIZE // PATCH) ** 2
    processor = PaliGemmaProcessor(pictures, words)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=SIZE, vision_use_head=False),
        text_config=GemmaConfig(**TEXT_SIZES, head_dim=16, num_key_value_heads=1, vocab_size=len(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return _save(folder, PaliGemmaForConditionalGeneration, config, processor, seed)


VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "patch_size": PATCH,
}
TEXT_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}


def _llama(words: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        **TEXT_SIZES,
        num_key_value_heads=2,
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )


def _template(picture: str) -> str:
    return TEMPLATE.replace("<PICTURE>", picture)


def _save(folder: Path, kind: type, config: object, processor: object, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():  # larger than usual, so that answers depend on the picture
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
