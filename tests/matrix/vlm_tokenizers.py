"""Small tokenizers of the two kinds that VLMs have, with the special tokens that their processors ask for."""

import string
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = """
Is there a house in the picture? Is the horizon at the red line? Does the horizon lie on the red line?
What is shown? Do the colors match the palette? Is the tree bare? Is the lamp lit? How many subjects are
there? Is it night? Is this picture like the other one? Yes No yes no two a tall tree by the house a lamp
User: user Assistant: assistant ASSISTANT: system model You are a helpful assistant. TILE_1 TILE_GLOBAL
"""
BASIC = {"pad_token": "<pad>", "unk_token": "<unk>"}
KINDS = {
    # GPT-2's, Llama 3's, Qwen's: words as bytes, a space belonging to the word after it.
    "bytes": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    # Llama 2's, Gemma's: SentencePiece, a space before the first word.
    "pieces": (pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first")),
    # Gemma's: SentencePiece, without that space.
    "bare pieces": (
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        decoders.Metaspace(prepend_scheme="never"),
    ),
}


def tokenizer(
    *special: str,
    kind: str = "bytes",
    bos: str = "<s>",
    eos: str = "</s>",
    starts: bool = False,
    **named: str,
) -> PreTrainedTokenizerFast:
    """A BPE tokenizer of some 400 tokens.

    Args:
        special: further special tokens.
        kind: how it treats spaces, one of `KINDS`.
        bos, eos: the first and last token of a text.
        starts: every text starts with ``bos``, without being asked.
        named: special tokens that the processor asks for by name, such as ``image_token="<image>"``.
    """
    core = Tokenizer.from_str(_learned(kind, tuple(dict.fromkeys([*BASIC.values(), bos, eos]))))
    if starts:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        **BASIC,
        additional_special_tokens=[token for token in special if token not in (bos, eos)],
        model_specific_special_tokens=named,
    )


@cache
def _learned(kind: str, special: tuple[str, ...]) -> str:
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = KINDS[kind]
    letters = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else list(string.printable)
    core.train_from_iterator(
        TEXT.splitlines(),
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=list(special), initial_alphabet=letters, show_progress=False
        ),
    )
    return core.to_str()
