"""VLMs whose vision tower is a convolutional network of the package timm."""

import transformers as t
from vlm_gemma import GEMMA, gemma_text, gemma_words
from vlm_parts import CHATML, Parts, chat, text
from vlm_tokenizers import tokenizer

WHOLE = {"height": 64, "width": 64}


def fast_vlm() -> Parts:
    words = tokenizer("<|im_start|>", "<image>", eos="<|im_end|>")
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=WHOLE),
        words,
        patch_size=32,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>\n{{ '' }}", **CHATML),
    )
    config = t.FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_t8",
            "do_pooling": True,
            "global_pool": "avg",
            "num_classes": 0,
            "hidden_size": 768,
            "initializer_range": 0.02,
            "model_args": {"inference_mode": False},
        },
        text_config=text(words, "qwen2"),
        image_token_index=processor.image_token_id,
    )
    return Parts(t.FastVlmForConditionalGeneration, config, processor)


def gemma3n() -> Parts:
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "audio_token": "<audio_soft_token>",
        "boa_token": "<start_of_audio>",
        "eoa_token": "<end_of_audio>",
    }
    words = gemma_words("<start_of_turn>", "<end_of_turn>", **named)
    processor = t.Gemma3nProcessor(
        t.Gemma3nAudioFeatureExtractor(),
        t.SiglipImageProcessor(size=WHOLE),
        words,
        image_seq_length=4,
        chat_template=chat("<image_soft_token>", **GEMMA),
    )
    known = len(words)
    config = t.Gemma3nConfig(
        vision_config={
            "architecture": "test_efficientnet",
            "hidden_size": 256,
            "vocab_size": 8,
            "vocab_offset": known,
        },
        audio_config={
            "hidden_size": 32,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": 2,
            "vocab_size": 8,
            "vocab_offset": known + 8,
            "sscp_conv_channel_size": [8, 8],
        },
        text_config=gemma_text(
            words,
            "gemma3n_text",
            vocab_size=known + 16,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=known,
            num_kv_shared_layers=0,
            laurel_rank=4,
            intermediate_size=[64, 64],
            activation_sparsity_pattern=[0.0, 0.0],
        ),
        vision_soft_tokens_per_image=4,
        image_token_id=words.image_token_id,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
        audio_token_id=words.audio_token_id,
    )
    return Parts(t.Gemma3nForConditionalGeneration, config, processor)
