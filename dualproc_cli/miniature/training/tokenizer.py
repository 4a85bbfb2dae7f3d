"""Word-level tokenizers: one token a word, lower case, punctuation apart."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORD = Regex(r"\w+|[^\w\s]")


def word_tokenizer(
    texts: Iterable[str], special: list[str], max_length: int, template: str | None = None
) -> PreTrainedTokenizerFast:
    """Build a tokenizer that knows the words of ``texts``; any other word is ``<unk>``.

    Args:
        texts: texts whose words make the vocabulary.
        special: special tokens besides <pad>, <unk>, <bos> and <eos>.
        max_length: length of the longest text in tokens.
        template: which special tokens surround a text ``$A``, as in ``"$A <eos>"``; None adds none.
    """
    base = ["<pad>", "<unk>", "<bos>", "<eos>"]
    split = pre_tokenizers.Split(WORD, "removed", invert=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())})
    vocabulary = {token: index for index, token in enumerate(base + special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    if template:
        used = [token for token in base if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, vocabulary[token]) for token in used]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=special,
    )
