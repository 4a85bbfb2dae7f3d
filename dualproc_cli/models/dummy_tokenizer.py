"""Dummy tokenizers in place of a model's own: one token per word, and the real special tokens."""

import json
import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PIECE = r"\w+|[^\w\s]|\n"  # a token is a word, a punctuation mark or a line break
ROLES = "system user assistant User Assistant"


def dummy_tokenizer(folder: Path, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer over the words of ``texts``, with the special tokens of ``tokenizer_config.json``.

    Words get small ids, which the model's embedding table also has; special tokens have their real ids. A
    real tokenizer makes about 1.3 tokens of a word: prompts are a little shorter than they would be.
    """
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    special = {token["content"]: int(at) for at, token in settings.pop("added_tokens_decoder").items()}
    said = " ".join([*texts, settings.get("chat_template", ""), ROLES, "\n"])
    words = dict.fromkeys(word for word in re.findall(PIECE, said) if word not in special)
    free = (at for at in count() if at not in special.values())
    unknown = settings.get("unk_token", settings["pad_token"])
    core = Tokenizer(models.WordLevel(special | dict(zip(words, free, strict=False)), unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=core, extra_special_tokens=list(special), **settings)
