"""A small randomly initialised VLM of real classes, saved as a folder that `AutoModelForImageTextToText` and
`AutoProcessor` load. It knows nothing; the tests are about the numbers, not the answers."""

import re
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from vlm_parts import VISION, Parts, save, text

SIZE = 64  # pixels
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
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}<eos> "
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(*special: str, digits: bool = False) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of `TEXT`; `special` tokens are added to `SPECIAL`.

    With ``digits``, each digit is a token of its own; otherwise they are unknown words.
    """
    known = [*re.findall(r"\w+|[^\w\s]+", TEXT), *("0123456789" if digits else "")]
    words = dict.fromkeys([*SPECIAL, *special, *known])
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    splits = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    core.pre_tokenizer = pre_tokenizers.Sequence(splits) if digits else splits[0]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[*SPECIAL[4:], *special],
    )


def make_vlm(folder: Path, seed: int = 0, digits: bool = False) -> Path:
    """A tiny Idefics3 for 64x64 pictures (16 visual tokens), the class of the miniature."""
    words = tokenizer("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", digits=digits)
    pictures = Idefics3ImageProcessor(
        size={"longest_edge": SIZE}, max_image_size={"longest_edge": SIZE}, do_image_splitting=False
    )
    processor = Idefics3Processor(pictures, words, image_seq_len=16, chat_template=TEMPLATE)
    config = Idefics3Config(
        vision_config={**VISION, "image_size": SIZE},
        text_config=text(words, "llama"),
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=False,
    )
    return save(Parts(Idefics3ForConditionalGeneration, config, processor), folder, seed)
