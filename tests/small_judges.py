"""Small models of the real classes that measures judge by, each saved as a folder that the Auto classes load.

Their weights are random unless `train_judges` trains them.
"""

import json
import string
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

SIDE, PATCH = 64, 8  # pixels
SQUARE = {"height": SIDE, "width": SIDE}
TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
PICTURES = {"image_size": SIDE, "patch_size": PATCH}
CARD = "---\nlicense: apache-2.0\n---\nA small model for tests.\n"


def letters(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with a token for each letter; the end has the highest index, as CLIP expects.

    Args:
        length: the most tokens that the model reads.
    """
    signs = string.ascii_lowercase + string.digits + ".,"
    tokens = ["!", *signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def save(folder: Path, kind: type[PreTrainedModel], config, processor, seed: int = 0) -> Path:
    """Save a model with random weights, its processor and a card."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # larger than usual, so that outputs depend on the picture
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def text_tower(tokens: CLIPTokenizer) -> dict:
    return {
        **TOWER,
        "vocab_size": len(tokens),
        "max_position_embeddings": tokens.model_max_length,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }


def make_clip(folder: Path, seed: int = 0, width: int = 32, layers: int = 2) -> Path:
    tokens = letters(40)
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = CLIPConfig(
        text_config=text_tower(tokens), vision_config={**TOWER, **PICTURES, **tower}, projection_dim=32
    )
    return save(folder, CLIPModel, config, CLIPProcessor(pictures, tokens), seed)


def make_siglip(folder: Path) -> Path:
    tokens = letters(40)
    config = SiglipConfig(
        text_config={**text_tower(tokens), "projection_size": 32}, vision_config={**TOWER, **PICTURES}
    )
    processor = SiglipProcessor(SiglipImageProcessor(size=SQUARE), tokens)
    return save(folder, SiglipModel, config, processor)


def make_features(folder: Path, width: int = 32, layers: int = 2) -> Path:
    pictures = BitImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    tower = {**TOWER, "hidden_size": width, "num_hidden_layers": layers}
    return save(folder, Dinov2Model, Dinov2Config(**tower, **PICTURES), pictures)


def make_segmenter(folder: Path, labels: tuple[str, ...] = ("wall", "sky", "ground")) -> Path:
    config = SegformerConfig(
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=32,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return save(folder, SegformerForSemanticSegmentation, config, SegformerImageProcessor(size=SQUARE))


def make_depth(folder: Path, kind: str = "relative", width: int = 32, layers: int = 4) -> Path:
    """A Depth Anything whose depth is ``relative`` or ``metric``."""
    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        mlp_ratio=2,
        **PICTURES,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=width,
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=32,
        head_hidden_size=16,
        depth_estimation_type=kind,
    )
    pictures = DPTImageProcessor(size=SQUARE, ensure_multiple_of=PATCH, keep_aspect_ratio=False)
    return save(folder, DepthAnythingForDepthEstimation, config, pictures)


def make_owlv2(folder: Path, width: int = 32, layers: int = 2) -> Path:
    tokens = letters(16)
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = Owlv2Config(
        text_config=text_tower(tokens), vision_config={**TOWER, **PICTURES, **tower}, projection_dim=32
    )
    processor = Owlv2Processor(Owlv2ImageProcessor(size=SQUARE), tokens)
    return save(folder, Owlv2ForObjectDetection, config, processor)


def make_grounding_dino(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "house", "tree", "ball", "lamp"]
    tokens = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    text = {**TOWER, "model_type": "bert", "vocab_size": len(words), "max_position_embeddings": 64}
    backbone = {
        "model_type": "swin",
        "image_size": SIDE,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 1],
        "num_heads": [1, 1, 1],
        "window_size": 4,
        "out_indices": [2, 3],
    }
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,  # one cannot share its box head
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_feature_levels=3,
        max_text_len=32,
    )
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": SIDE, "longest_edge": SIDE})
    return save(folder, GroundingDinoForObjectDetection, config, GroundingDinoProcessor(pictures, tokens))


def rewrite_config(folder: Path, **changes) -> Path:
    """Change the configuration that ``folder`` holds."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder
