"""Families that cannot be asked, and why: each is tried, so that the reason is still true."""

from collections.abc import Callable
from dataclasses import dataclass

import transformers as t
from vlm_parts import CHATML, PATCH, SQUARE, VISION, Parts, chat, text
from vlm_tokenizers import tokenizer


def llama4() -> Parts:
    marks = (
        "<|header_start|>",
        "<|header_end|>",
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
    )
    tiles = ("<|tile_x_separator|>", "<|tile_y_separator|>")
    words = tokenizer(*marks, *tiles, bos="<|begin_of_text|>", eos="<|eot|>", starts=True)
    header = "<|header_start|>{}<|header_end|>\n\n"
    processor = t.Llama4Processor(
        t.Llama4ImageProcessor(size=SQUARE, max_patches=4),
        words,
        patch_size=PATCH,
        pixel_shuffle_ratio=0.5,
        chat_template=chat(
            "<|image|>",
            turn=header.format("ROLE"),
            end="<|eot|>",
            answer=header.format("assistant"),
            start="<|begin_of_text|>",
        ),
    )
    config = t.Llama4Config(
        vision_config={
            **VISION,
            "intermediate_size": 128,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        text_config=text(
            words,
            "llama4_text",
            head_dim=16,
            intermediate_size_mlp=64,
            num_local_experts=2,
            attention_chunk_size=1024,
        ),
        image_token_index=words.convert_tokens_to_ids("<|patch|>"),
    )
    return Parts(t.Llama4ForConditionalGeneration, config, processor)


def got_ocr2() -> Parts:
    words = tokenizer("<|im_start|>", "<img>", "</img>", "<imgpad>", eos="<|im_end|>")
    processor = t.GotOcr2Processor(
        t.GotOcr2ImageProcessor(size={"height": 64, "width": 64}),
        words,
        chat_template=chat("<img><imgpad></img>\n{{ '' }}", **CHATML),
    )
    config = t.GotOcr2Config(
        vision_config={
            **VISION,
            "image_size": 1024,
            "patch_size": 64,
            "output_channels": 16,
            "mlp_dim": 64,
            "global_attn_indexes": [1],
            "window_size": 2,
        },
        text_config=text(words, "qwen2"),
        image_token_index=processor.image_token_id,
    )
    return Parts(t.GotOcr2ForConditionalGeneration, config, processor)


def chameleon() -> Parts:
    """Pictures become tokens of a codebook."""
    words = tokenizer("<image>", "<racm3:break>", "<eoss>", "<reserved08706>", starts=True)
    words.sep_token = "<reserved08706>"
    processor = t.ChameleonProcessor(
        t.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), words, image_seq_length=4
    )
    config = t.ChameleonConfig(
        **{k: v for k, v in text(words, "chameleon").items() if k != "model_type"},
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 8,
            "latent_channels": 8,
            "resolution": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1, 1],
            "num_res_blocks": 1,
        },
        vocabulary_map={
            "<image>": words.convert_tokens_to_ids("<image>"),
            **{f"IMGIMG{c}Z": i for i, c in enumerate("ABCDEFGH", 10)},
        },
    )
    return Parts(t.ChameleonForConditionalGeneration, config, processor)


def florence2() -> Parts:
    """An encoder reads picture and question, a decoder writes the answer."""
    words = tokenizer(image_token="<image>")
    pictures = t.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    pictures.image_seq_length = 17
    processor = t.Florence2Processor(pictures, words)
    config = t.Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": 32,
        },
        text_config=text(
            words,
            "bart",
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
        ),
        image_token_id=words.image_token_id,
    )
    return Parts(t.Florence2ForConditionalGeneration, config, processor)


@dataclass(frozen=True)
class Refused:
    """A family that cannot be asked.

    Attributes:
        build: makes its parts.
        message: what the user is told, a regular expression.
        reason: why it is so.
    """

    build: Callable[[], Parts]
    message: str
    reason: str


EXCEPTIONS = {
    "Chameleon": Refused(
        chameleon,
        "cannot learn from Chameleon.* does not require grad",
        "pictures become tokens of a codebook, which no gradient passes",
    ),
    "Florence-2": Refused(
        florence2,
        "is an encoder-decoder",
        "an encoder-decoder: its answer is not the next text of a dialogue",
    ),
    "GOT-OCR2": Refused(
        got_ocr2,
        "cannot ask it about 1 picture.*Nested images",
        "a reader of documents: its processor writes the prompt itself and takes no dialogue",
    ),
    "Llama4": Refused(
        llama4,
        "cannot be asked about a picture.*no attribute 'image_outputs'",
        "its forward fails in transformers 5.24 itself, with any picture",
    ),
}
