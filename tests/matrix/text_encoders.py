"""Tokenizers and text encoders of random weights, tiny, of the classes that real pipelines have."""

from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

WIDTH = 16  # of every text encoder's features
TOKENS = 16  # of a prompt, at most
CHAT_TOKENS = 128  # of a prompt in its chat template, at most
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<|image_pad|>", "<|video_pad|>")
WORDS = (
    "a",
    "the",
    "by",
    "house",
    "tree",
    "ball",
    "sea",
    "picture",
    "red",
    "blue",
    "user",
    "system",
    "color",
)
VOCABULARY = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
IDS = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
CHAT = (
    "{% for message in messages %}{{ message.role }} : "
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }} {% endfor %}{% endif %}{% endfor %}"
)
DECODER = {
    **IDS,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
VISION = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "patch_size": 8}
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}


def words(
    length: int = TOKENS, vocabulary: dict[str, int] = VOCABULARY, **special: str
) -> PreTrainedTokenizerFast:
    """A tokenizer of words and signs that pads and truncates to ``length`` tokens, with a chat template.

    ``vocabulary`` begins with the first four of SPECIAL. ``special`` names further tokens:
    ``image_token="<|image_pad|>"``.
    """
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=length,
        chat_template=CHAT,
        model_specific_special_tokens=special,
    )


def chat(**special: str) -> PreTrainedTokenizerFast:
    """`words`, long enough for the templates that prompts are put into."""
    return words(CHAT_TOKENS, **special)


def clip(projection: bool = False, width: int = WIDTH) -> PreTrainedModel:
    """A CLIP text model, with a projection of its pooled output where asked for."""
    kind = "CLIPTextModelWithProjection" if projection else "CLIPTextModel"
    config = transformers.CLIPTextConfig(
        **IDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        projection_dim=width,
    )
    return getattr(transformers, kind)(config).eval()


def t5(kind: str = "T5") -> PreTrainedModel:
    """A T5 encoder, or a UMT5 encoder."""
    config = getattr(transformers, f"{kind}Config")(
        **IDS,
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    return getattr(transformers, f"{kind}EncoderModel")(config).eval()


def byt5() -> PreTrainedModel:
    """A T5 encoder of bytes."""
    config = transformers.T5Config(
        vocab_size=384, d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return transformers.T5EncoderModel(config).eval()


def bert() -> PreTrainedModel:
    """A BERT encoder."""
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=128,
    )
    return transformers.BertModel(config).eval()


def decoder(kind: str, head: str = "Model", layers: int = 2, **changes: Any) -> PreTrainedModel:
    """A decoder of text alone: ``kind`` is Gemma, Gemma2, Llama, Glm, Qwen3..."""
    config = getattr(transformers, f"{kind}Config")(**{**DECODER, "num_hidden_layers": layers, **changes})
    return getattr(transformers, kind + head)(config).eval()


def qwen_vl(kind: str, head: str = "ForConditionalGeneration", layers: int = 2) -> PreTrainedModel:
    """A Qwen2_5_VL or Qwen3VL, whose text encodes the prompt."""
    text = {**DECODER, "num_hidden_layers": layers, "rope_parameters": MROPE, "rope_scaling": MROPE}
    vision = {**VISION, "depth": 1, "out_hidden_size": WIDTH}
    if kind == "Qwen3VL":
        vision["deepstack_visual_indexes"] = [0]
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=vision, image_token_id=4, video_token_id=5
    )
    config = config.text_config if head == "TextModel" else config
    return getattr(transformers, kind + head)(config).eval()


def qwen_processor(kind: str) -> Any:
    """The processor of a Qwen2VL or Qwen3VL around `chat`."""
    return getattr(transformers, f"{kind}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=chat(),
        video_processor=getattr(transformers, f"{kind}VideoProcessor")(),
        chat_template=CHAT,
    )


def mistral3(layers: int) -> PreTrainedModel:
    """A Mistral3, whose text encodes the prompt."""
    vision = {**VISION, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    del vision["num_heads"]
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**{**DECODER, "num_hidden_layers": layers}),
        vision_config=transformers.PixtralVisionConfig(**vision),
        image_token_index=4,
    )
    return transformers.Mistral3ForConditionalGeneration(config).eval()


def t5_gemma() -> PreTrainedModel:
    """The encoder of a T5Gemma, saved as PRX has it: with the configuration of the whole."""
    module = transformers.T5GemmaModuleConfig(**{**DECODER, "num_hidden_layers": 2})
    whole = transformers.T5GemmaConfig(encoder=module, decoder=module, dropout_rate=0.0)
    encoder = T5GemmaEncoder(whole.encoder).eval()
    encoder.config = whole
    return encoder


def siglip() -> PreTrainedModel:
    """A SigLIP 2 vision model, which reads pictures that come with the prompt."""
    config = transformers.Siglip2VisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.Siglip2VisionModel(config).eval()
