"""The training of the VLM: three questions about each picture, answered in one forward pass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoTokenizer

from dualproc_cli.jitter import jittered
from dualproc_cli.miniature.training.augment import augment
from dualproc_cli.miniature.training.blends import Blends, sample_blends
from dualproc_cli.miniature.training.heads import SceneHeads
from dualproc_cli.miniature.training.loop import Chunks, Task, Training, half_precision
from dualproc_cli.miniature.training.packing import IGNORE, Packer, sample_questions
from dualproc_cli.miniature.training.pictures import TrainingPictures
from dualproc_cli.miniature.training.vlm_model import (
    IMAGE_TOKENS,
    PATCH,
    WIDTH,
    build_model,
    build_processor,
)
from dualproc_cli.miniature.world.overlays import Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import Margin
from dualproc_cli.spec import JitterSpec

BLENDED = 0.2  # share of the pictures that are blends of two scenes
CORRUPTED = 0.15  # share of the pictures of one scene that are corrupted
MISCOLORED = 0.15  # share of those of which a part has a wrong colour
# Share of the pictures that are shifted and made noisy, with their visual prompts, as `learn.jitter` does.
JITTERED, JITTER = 0.2, JitterSpec(noise=0.03, shift=0.06)
CHUNK, PART, REUSE = 2048, 256, 4  # pictures made at a time, in parts, and how often each is used


class VlmNetworks(nn.Module):
    """The VLM and the auxiliary heads that it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.packer = Packer()
        self.vlm = build_model(self.packer.tokenizer)
        self.vlm.set_attn_implementation("eager")
        self.heads = SceneHeads(WIDTH, PATCH, WIDTH, IMAGE_TOKENS)
        # Compiled and in half precision, it takes 0.4 of the time.
        self.compiled_forward = torch.compile(self.forward, dynamic=False)

    def forward(self, images: Tensor, suffixes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `encode` and `hidden_states` return: patches, picture tokens and hidden states."""
        patches, tokens = self.encode(images)
        return patches, tokens, self.hidden_states(tokens, suffixes)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images [B, 3, H, W] in [0, 1] to patches [B, N, D] and the picture's tokens [B, T, D]."""
        pixels = (images - 0.5) / 0.5
        mask = torch.ones(len(images), images.shape[-1] // PATCH, images.shape[-1] // PATCH, dtype=torch.bool)
        patches = self.vlm.model.vision_model(pixels, patch_attention_mask=mask).last_hidden_state
        return patches, self.vlm.model.connector(patches)

    def hidden_states(self, tokens: Tensor, suffixes: Tensor) -> Tensor:
        """Return the language model's last hidden states [B, Q, length, D] at the suffixes.

        Args:
            tokens: [B, T, D] picture tokens from `encode`.
            suffixes: [B, Q, length] token ids from `Packer.pack`.
        """
        packer, embed = self.packer, self.vlm.get_input_embeddings()
        prefix = embed(packer.prefix)[None].repeat(len(tokens), 1, 1)
        prefix = prefix.index_copy(1, packer.image_positions, tokens.to(prefix.dtype))
        row = torch.cat([prefix, embed(suffixes.flatten(1))], 1)
        out = self.vlm.model.text_model(
            inputs_embeds=row, attention_mask=packer.mask.expand(len(row), -1, -1, -1),
            position_ids=packer.positions, use_cache=False,
        ).last_hidden_state  # fmt: skip
        return out[:, len(packer.prefix) :].unflatten(1, (suffixes.shape[1], packer.suffix_length))

    def answer_loss(self, hidden: Tensor, labels: Tensor, soft: Tensor, margin: Tensor) -> dict[str, Tensor]:
        """Return the terms of the answers' loss.

        Args:
            hidden: [B, Q, length, D] from `hidden_states`.
            labels: [B, Q, length] from `Packer.pack`.
            soft: [B, Q, length] from `Packer.pack`.
            margin: [B, Q] log-odds of Yes.

        Returns:
            ``answer``: cross-entropy of Yes and No against their soft targets, less the targets' own entropy;
            ``margin``: distance of the log-odds of Yes from the margin; ``text``: cross-entropy of all other
            tokens.
        """
        chosen = labels != IGNORE
        logits = self.vlm.lm_head(hidden[chosen])
        log_p = logits.log_softmax(-1)
        hard = F.nll_loss(log_p, labels[chosen], reduction="none")
        at = soft[chosen]
        odds = margin[soft.any(-1)]
        p = torch.sigmoid(odds)
        yes, no = log_p[at, self.packer.yes], log_p[at, self.packer.no]
        entropy = -(p * torch.log(p) + (1 - p) * torch.log1p(-p))
        excess = -(p * yes + (1 - p) * no) - entropy
        return {
            "answer": excess.mean(),
            "margin": 0.1 * F.smooth_l1_loss(yes - no, odds),
            "text": hard[~at].mean() * 0.5,
        }


def make_part(pictures: TrainingPictures, count: int, rng: torch.Generator) -> list[Blends]:
    """Make ``count`` pictures: a share BLENDED are blends of two scenes; of the rest, some are spoiled."""
    blended = round(BLENDED * count)
    whole = Blends.from_one_scene(*pictures.sample(count - blended, rng))
    draw = torch.rand(count - blended, generator=rng)
    corrupted, spoiled = draw < CORRUPTED, draw < CORRUPTED + MISCOLORED
    return [
        whole[~spoiled],
        whole[corrupted].corrupted(rng),
        whole[spoiled & ~corrupted].miscolored(rng),
        sample_blends(blended, rng),
    ]


@dataclass
class StepOutput:
    """What one training step computes for a batch of B pictures.

    Attributes:
        seen: the pictures as they were made, with all artefacts.
        overlays: the visual prompts laid over the pictures.
        in_place: [B] whether the picture was not shifted.
        margins: what is true of each yes-no kind.
        patches: [B, N, D] from `VlmNetworks.encode`.
        tokens: [B, T, D] from `VlmNetworks.encode`.
        terms: the terms of the answers' loss.
    """

    seen: Blends
    overlays: Overlays
    in_place: Tensor
    margins: dict[str, Margin]
    patches: Tensor
    tokens: Tensor
    terms: dict[str, Tensor]


def forward_step(networks: VlmNetworks, seen: Blends, rng: torch.Generator) -> StepOutput:
    """Lay visual prompts over pictures, ask about them, and compare the answers with the truth."""
    overlays = sample_overlays(seen.first, seen.first_rendering, rng)
    images, artefacts = augment(overlays.lay_over(seen.images), rng)
    moves = torch.rand(len(images), generator=rng) < JITTERED
    images = torch.where(moves.view(-1, 1, 1, 1), jittered(images, JITTER, rng), images)
    seen = seen.disturbed(artefacts)
    margins = seen.margins(overlays)
    batch = sample_questions(seen.first, margins, seen.shows_one_scene, seen.is_unclear, networks.packer, rng)
    suffixes, labels, soft = networks.packer.pack(batch)
    with half_precision():
        patches, tokens, hidden = networks.compiled_forward(images, suffixes)
    terms = networks.answer_loss(hidden.float(), labels, soft, batch.margin)
    return StepOutput(seen, overlays, ~moves, margins, patches.float(), tokens.float(), terms)


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of training the VLM, from the weights in ``folder`` where it was exported before."""
    warm = (folder / "vlm").exists()
    networks = load_networks(folder) if warm else VlmNetworks()
    pictures = TrainingPictures(folder, generated=0.0)

    def make_chunk(rng: torch.Generator) -> Blends:
        parts = [make_part(pictures, PART, rng) for _ in range(CHUNK // PART)]
        return Blends.concatenate([one for part in parts for one in part])

    chunks = Chunks(make_chunk, seed, CHUNK * REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        seen = chunks.at(step * batch_size)[torch.randint(CHUNK, (batch_size,), generator=rng)]
        output = forward_step(networks, seen, rng)
        heads, one = networks.heads, (seen.shows_one_scene & output.in_place).nonzero()[:, 0]
        scene = seen.first[one], seen.first_rendering[one], output.overlays[one]
        return {
            **output.terms,
            "scene": heads.loss(output.patches[one], output.tokens[one], *scene),
            "relations": heads.relations_loss(output.tokens, output.margins),
        }

    rate = 8e-4 if warm else 1.2e-3
    return Task("vlm", networks, loss, samples, 48, rate, moved_by_muon, warm_start=warm)


def load_networks(folder: Path) -> VlmNetworks:
    """Load the VLM that was exported to ``folder``, with new auxiliary heads.

    It may have been exported with another vocabulary: the words that are new get fresh embeddings.
    """
    networks = VlmNetworks()
    exported: Any = AutoModelForImageTextToText.from_pretrained(folder / "vlm", dtype=torch.float32)
    state = {name: value.to(torch.get_default_device()) for name, value in exported.state_dict().items()}
    known = AutoTokenizer.from_pretrained(folder / "vlm").get_vocab()
    vocabulary = networks.packer.tokenizer.get_vocab()
    own = networks.vlm.state_dict()
    for name in ("model.text_model.embed_tokens.weight", "lm_head.weight"):
        state[name] = _rows_by_token(state[name], known, own[name], vocabulary)
    networks.vlm.load_state_dict(state)
    return networks


def _rows_by_token(rows: Tensor, known: dict[str, int], fresh: Tensor, vocabulary: dict[str, int]) -> Tensor:
    """Return ``fresh`` [V, D], with the row of every token that is known taken from ``rows`` [V', D]."""
    shared = [token for token in vocabulary if token in known]
    found = fresh.clone()
    found[[vocabulary[token] for token in shared]] = rows[[known[token] for token in shared]]
    return found


def moved_by_muon(name: str, parameter: nn.Parameter) -> bool:
    """Return whether Muon moves a parameter: the matrices of the transformers' layers."""
    return parameter.ndim == 2 and ".layers." in name


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the averaged VLM with its processor, in half precision; it has no held-out figures here."""
    training.use_average()
    networks = training.task.modules
    if not isinstance(networks, VlmNetworks):
        raise TypeError(f"expected the VLM's training, got that of {training.task.name}")
    networks.vlm.half().save_pretrained(folder / "vlm")
    build_processor(networks.packer.tokenizer).save_pretrained(folder / "vlm")
    return {}
