"""Questions and answers as tokens, and pictures as tensors, as a VLM's own processor makes them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from dualproc_cli.errors import UserError
from dualproc_cli.vlm.template import MARK, TEMPLATE_ERRORS, after_answer, before_answer, user_message

logger = logging.getLogger(__name__)

GRAY = (76, 76, 76)  # of the blank pictures that questions are encoded with

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Prompts:
    """Questions about pictures of one size, and their candidate answers, as tokens.

    Attributes:
        tokens: one prompt per question, from the first token to the generation prompt.
        answers: the candidate answers of each question. If the tokens of one begin another's, all of them end
            with the end-of-turn token; otherwise the short one would get the probability of both.
        token_inputs: one dict per question: inputs [1, prompt length, ...] with one entry per token, such as
            token types.
        question_inputs: one dict per question: its other inputs [1, ...], such as the text of a Q-Former.
        shared: length of the longest token prefix that all prompts have in common.
        holds_pictures: whether every picture token lies within the shared prefix.
        pixel_keys: names of the inputs that hold the pictures.
    """

    tokens: tuple[Tokens, ...]
    answers: tuple[tuple[Tokens, ...], ...]
    token_inputs: tuple[dict[str, Tensor], ...]
    question_inputs: tuple[dict[str, Tensor], ...]
    shared: int
    holds_pictures: bool
    pixel_keys: tuple[str, ...]


def plan_prompts(
    processor: ProcessorMixin,
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    sizes: Sequence[tuple[int, int]],
) -> Prompts:
    """Encode every question once, each in a message with one picture per entry of ``sizes``.

    ``sizes`` are (height, width) in pixels. The tokens depend on the pictures' sizes only, so blank pictures
    are encoded.

    Raises:
        UserError: a question cannot be asked about this many pictures, an answer has no tokens, two
            candidates of a question have the same tokens, or the tokens of one begin another's and the VLM
            has no end-of-turn token.
    """
    blanks = [Image.new("RGB", (width, height), GRAY) for height, width in sizes]
    encoded = [encode(processor, question, blanks) for question in questions]
    tokens = tuple(tuple(inputs["input_ids"][0].tolist()) for inputs in encoded)
    shared = _common_prefix(tokens)
    placeholder = _picture_token(processor)
    pixel_keys = [key for key in _prepare(processor, [blanks]) if key in encoded[0]]
    others = [
        {key: value for key, value in inputs.items() if key not in ("input_ids", *pixel_keys)}
        for inputs in encoded
    ]
    return Prompts(
        tokens=tokens,
        answers=tuple(
            _candidates(processor, question, prompt, candidates)
            for question, prompt, candidates in zip(questions, tokens, answers, strict=True)
        ),
        token_inputs=tuple(
            _by_token(inputs, prompt, True) for inputs, prompt in zip(others, tokens, strict=True)
        ),
        question_inputs=tuple(
            _by_token(inputs, prompt, False) for inputs, prompt in zip(others, tokens, strict=True)
        ),
        shared=shared,
        holds_pictures=all(placeholder not in prompt[shared:] for prompt in tokens),
        pixel_keys=tuple(pixel_keys),
    )


def picture_inputs(
    processor: ProcessorMixin, pictures: Sequence[Sequence[Tensor]], keys: Sequence[str]
) -> dict[str, Tensor]:
    """Return the VLM's picture inputs, differentiable in the pictures.

    Args:
        processor: of the VLM; its torchvision image processor works on float tensors and keeps the graph.
        pictures: for each message its pictures [3, H, W] in [0, 1].
        keys: names of the inputs that the model takes.
    """
    # In the range of 8-bit pictures: some processors pad with a gray of 127 before they rescale.
    inputs = _prepare(processor, [[255 * picture for picture in group] for group in pictures])
    return {key: inputs[key] for key in keys}


def _prepare(processor: ProcessorMixin, pictures: Sequence[Sequence[Any]]) -> Any:
    options = {"return_tensors": "pt", **getattr(processor, "images_kwargs", {})}
    return processor.image_processor(pictures, **options)


def encode(processor: ProcessorMixin, question: str, pictures: Sequence[Any]) -> dict[str, Tensor]:
    """Return the inputs of a question about ``pictures``, by name.

    Raises:
        UserError: the question cannot be asked about this many pictures.
    """
    try:
        inputs: Any = processor.apply_chat_template(
            [user_message(question, pictures)],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    except TEMPLATE_ERRORS as error:
        raise UserError(
            f"question {question!r}: the VLM's chat template and processor cannot ask it about "
            f"{len(pictures)} picture(s) ({' '.join(str(error).split())[:160]}); choose another VLM"
        ) from error
    # Nothing is padded, so the mask is all ones; labels are for training the VLM itself.
    return {
        key: value
        for key, value in inputs.items()
        if torch.is_tensor(value) and key not in ("attention_mask", "labels")
    }


def _by_token(inputs: dict[str, Tensor], prompt: Tokens, wanted: bool) -> dict[str, Tensor]:
    """Return the ``inputs`` with an entry for each token of ``prompt`` if ``wanted``, else the others."""
    return {key: value for key, value in inputs.items() if (value.shape[:2] == (1, len(prompt))) == wanted}


def _common_prefix(prompts: Sequence[Tokens]) -> int:
    columns = enumerate(zip(*prompts, strict=False))
    return next((index for index, column in columns if len(set(column)) > 1), min(map(len, prompts)))


def _picture_token(processor: ProcessorMixin) -> int | None:
    if (token := getattr(processor, "image_token_id", None)) is not None:
        return token
    name = getattr(processor, "image_token", None)
    return None if name is None else processor.tokenizer.convert_tokens_to_ids(str(name))


def _candidates(
    processor: ProcessorMixin, question: str, prompt: Tokens, answers: Sequence[str]
) -> tuple[Tokens, ...]:
    found = tuple(_answer_tokens(processor, question, prompt, answer) for answer in answers)
    for tokens, answer in zip(found, answers, strict=True):
        if not tokens:
            raise UserError(
                f"question {question!r}: the VLM has no tokens for the answer {answer!r}; choose other words"
            )
        if processor.tokenizer.unk_token_id in tokens and processor.tokenizer.unk_token_id is not None:
            logger.warning("question %r: the VLM does not know all words of the answer %r", question, answer)
    if len(set(found)) < len(found):
        raise UserError(
            f"question {question!r}: the VLM has the same tokens for two of its answers: "
            f"{', '.join(answers)}; choose other words"
        )
    if not any(longer[: len(tokens)] == tokens for tokens, longer in permutations(found, 2)):
        return found
    end = _end_of_turn(processor, question)
    if end is None:
        raise UserError(
            f"question {question!r}: the VLM's tokens of one answer begin another's ({', '.join(answers)}), "
            "and neither its chat template nor its tokenizer has an end of turn to tell them apart; choose "
            "answers that do not begin alike"
        )
    return tuple((*tokens, end) for tokens in found)


def _answer_tokens(processor: ProcessorMixin, question: str, prompt: Tokens, answer: str) -> Tokens:
    """Return the tokens that the VLM itself would write for ``answer`` right after the generation prompt.

    Two conventions decide whether that is "Yes" or " Yes". The chat template: after "Assistant:" some write a
    space before an assistant's words, after "assistant\\n" none; so it is looked up in a rendered dialogue.
    The tokenizer: SentencePiece puts a space before any text that stands alone; so the answer is tokenised
    after the prompt's last token.
    """
    last = processor.tokenizer.decode([prompt[-1]])
    space = "" if last[-1:].isspace() else before_answer(processor, question, answer)
    return _tokens_after(processor, last, (space if space.isspace() else "") + answer)


def _end_of_turn(processor: ProcessorMixin, question: str) -> int | None:
    """Return the token that the VLM writes right after an answer; None if it has no such token.

    It is the first of what the chat template puts after an assistant's words in a dialogue, or, where the
    template puts nothing there, the tokenizer's end of sequence.
    """
    end = after_answer(processor, question)
    tokens = _tokens_after(processor, MARK, end) if end.strip() else ()
    known = tokens and tokens[0] != processor.tokenizer.unk_token_id
    return tokens[0] if known else processor.tokenizer.eos_token_id


def _tokens_after(processor: ProcessorMixin, before: str, text: str) -> Tokens:
    """Return the tokens of ``text`` where it follows ``before``."""
    encode = processor.tokenizer.encode
    first, both = encode(before, add_special_tokens=False), encode(before + text, add_special_tokens=False)
    if both[: len(first)] == first:
        return tuple(both[len(first) :])
    return tuple(encode(text, add_special_tokens=False))  # the tokenizer merges the two
