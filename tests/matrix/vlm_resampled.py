"""VLMs that compress what their tower sees (Idefics, Q-Formers), or attend to it across (Mllama)."""

import transformers as t
from vlm_parts import CLIP, PATCH, SQUARE, VISION, Parts, chat, text
from vlm_tokenizers import tokenizer

TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
SIZES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}  # four tiles and the whole
SPOKEN = {"turn": "ROLE:", "end": "<end_of_utterance>\n", "answer": "Assistant:", "said": "Assistant: "}
NAMED = {"role": "message['role'] | capitalize"}


def idefics2() -> Parts:
    words = tokenizer(*IDEFICS, kind="pieces", starts=True)
    pictures = t.Idefics2ImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    template = chat("<image>", **SPOKEN, **NAMED)
    processor = t.Idefics2Processor(pictures, words, image_seq_len=4, chat_template=template)
    config = t.Idefics2Config(
        vision_config={**VISION, "image_size": 64},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=text(words, "mistral"),
        image_token_id=processor.image_token_id,
    )
    return Parts(t.Idefics2ForConditionalGeneration, config, processor)


def idefics3() -> Parts:
    words = tokenizer(*IDEFICS, "<global-img>", *TILES, bos="<|begin_of_text|>")
    pictures = t.Idefics3ImageProcessor(**SIZES)
    template = chat("<image>", start="<|begin_of_text|>", **SPOKEN, **NAMED)
    processor = t.Idefics3Processor(pictures, words, image_seq_len=4, chat_template=template)
    config = t.Idefics3Config(
        vision_config=VISION,
        text_config=text(words, "llama"),
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=words.pad_token_id,
    )
    return Parts(t.Idefics3ForConditionalGeneration, config, processor)


def smolvlm() -> Parts:
    words = tokenizer(*IDEFICS, "<global-img>", *TILES, bos="<|im_start|>", eos="<end_of_utterance>")
    pictures, videos = t.SmolVLMImageProcessor(**SIZES), t.SmolVLMVideoProcessor(**SIZES)
    template = chat("<image>", start="<|im_start|>", **SPOKEN, **NAMED)
    processor = t.SmolVLMProcessor(pictures, words, videos, image_seq_len=4, chat_template=template)
    config = t.SmolVLMConfig(
        vision_config=VISION,
        text_config=text(words, "llama"),
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=words.pad_token_id,
    )
    return Parts(t.SmolVLMForConditionalGeneration, config, processor)


def mllama() -> Parts:
    """Pictures enter through cross-attention; up to four tiles each."""
    ends = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
    words = tokenizer(*ends, "<|image|>", bos="<|begin_of_text|>", eos="<|eot_id|>", starts=True)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    template = chat(
        "<|image|>",
        turn=header.format("ROLE"),
        end="<|eot_id|>",
        answer=header.format("assistant"),
        start="<|begin_of_text|>",
    )
    pictures = t.MllamaImageProcessor(size=SQUARE, max_image_tiles=4)
    config = t.MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_size": 64,
            "vision_output_dim": 64,
            "image_size": 32,
            "patch_size": PATCH,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        # The picture's token has an id beyond the vocabulary that is predicted.
        text_config=text(
            words,
            "mllama_text_model",
            num_hidden_layers=3,
            cross_attention_layers=[1],
            vocab_size=words.convert_tokens_to_ids("<|image|>"),
        ),
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )
    return Parts(
        t.MllamaForConditionalGeneration, config, t.MllamaProcessor(pictures, words, chat_template=template)
    )


def blip2() -> Parts:
    """A Q-Former's queries stand before the text; the processor puts them there, no template does."""
    words = tokenizer("<image>", starts=True)
    processor = t.Blip2Processor(t.BlipImageProcessor(size=SQUARE), words, num_query_tokens=4)
    config = t.Blip2Config(
        vision_config=VISION,
        qformer_config={
            **{k: v for k, v in VISION.items() if k not in ("image_size", "patch_size")},
            "encoder_hidden_size": 32,
            "vocab_size": 10,
        },
        text_config=text(words, "opt", word_embed_proj_dim=32, ffn_dim=64),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return Parts(t.Blip2ForConditionalGeneration, config, processor)


def kosmos2() -> Parts:
    words = tokenizer(starts=True)
    processor = t.Kosmos2Processor(
        t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), words, num_patch_index_tokens=4
    )
    config = t.Kosmos2Config(
        vision_config=CLIP,
        text_config={
            "vocab_size": len(words),
            "embed_dim": 32,
            "layers": 2,
            "dropout": 0.0,
            "ffn_dim": 64,
            "attention_heads": 2,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
        },
        latent_query_num=64,  # as many as the processor makes room for
    )
    return Parts(t.Kosmos2ForConditionalGeneration, config, processor)


def instructblip() -> Parts:
    """Its Q-Former reads the question beside the picture."""
    words = tokenizer("<image>", starts=True)
    processor = t.InstructBlipProcessor(
        t.BlipImageProcessor(size=SQUARE), words, tokenizer(starts=True), num_query_tokens=4
    )
    config = t.InstructBlipConfig(
        vision_config=VISION,
        qformer_config={
            **{k: v for k, v in VISION.items() if k not in ("image_size", "patch_size")},
            "encoder_hidden_size": 32,
            "vocab_size": len(words),
        },
        text_config=text(words, "opt", word_embed_proj_dim=32, ffn_dim=64),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    return Parts(t.InstructBlipForConditionalGeneration, config, processor)
