"""The VLM: several questions about each picture, packed behind one shared picture prefix."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText

from dualproc_cli.miniature.training.augment import augment
from dualproc_cli.miniature.training.blends import Blends, blended_pictures
from dualproc_cli.miniature.training.heads import SceneHeads
from dualproc_cli.miniature.training.loop import Chunks, Task, Training, half_precision
from dualproc_cli.miniature.training.pictures import Pictures
from dualproc_cli.miniature.training.vlm_model import (
    IMAGE_TOKENS,
    PATCH,
    WIDTH,
    build_model,
    build_processor,
    build_tokenizer,
)
from dualproc_cli.miniature.world.language import OPEN_KINDS, WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import Margin, open_answers
from dualproc_cli.miniature.world.scene import Scene

QUESTIONS = 3  # asked about each picture
OPEN_WEIGHT = 0.35  # how often an open question is asked, relative to the margins' weights
ANSWER_LENGTH = 6  # tokens, <eos> among them
IGNORE = -100
DOUBLE = 0.2  # share of the pictures that are double blends
CHUNK, PART, REUSE = 2048, 128, 4  # pictures made at a time, and how often each is used


@dataclass
class QuestionBatch:
    """Q questions about each of B pictures."""

    wording: Tensor  # [B, Q] index into WORDINGS
    margin: Tensor  # [B, Q] log-odds of Yes, NaN for open questions
    answers: Tensor  # [B, Q, ANSWER_LENGTH] token ids of open answers, IGNORE elsewhere


class Packer:
    """Token ids, positions and the attention mask of a picture prefix and Q question suffixes in one row."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()
        vocabulary = self.tokenizer.get_vocab()
        around = "<fake_token_around_image>"
        self.prefix = torch.tensor(
            self.ids(f"<bos><user>{around}<global-img>{'<image>' * IMAGE_TOKENS}{around}")
        )
        self.image_positions = self.prefix.eq(vocabulary["<image>"]).nonzero()[:, 0]
        asked = [self.ids(f"{wording.text}<assistant>") for wording in WORDINGS]
        self.lengths = torch.tensor([len(tokens) for tokens in asked])
        self.length = int(self.lengths.max()) + ANSWER_LENGTH - 1
        self.pad = vocabulary["<pad>"]
        self.asked = torch.tensor([tokens + [self.pad] * (self.length - len(tokens)) for tokens in asked])
        self.yes, self.no, self.eos = vocabulary["yes"], vocabulary["no"], vocabulary["<eos>"]
        n, total = len(self.prefix), len(self.prefix) + QUESTIONS * self.length
        segment = torch.cat([torch.full((n,), -1), torch.arange(QUESTIONS).repeat_interleave(self.length)])
        earlier = torch.ones(total, total).tril().bool()
        allowed = ((segment[None] == segment[:, None]) | (segment[None] == -1)) & earlier
        self.mask = torch.zeros(1, 1, total, total).masked_fill(~allowed, float("-inf"))
        suffix = torch.arange(self.length).repeat(QUESTIONS) + n
        self.positions = torch.cat([torch.arange(n), suffix])[None]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def rows(self, batch: QuestionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Suffix tokens and labels [B, Q, length], and where the soft Yes-No target stands [B, Q, length]."""
        tokens = self.asked[batch.wording].clone()
        labels = torch.full_like(tokens, IGNORE)
        answers = batch.answers.clone()
        yes_no = ~batch.margin.isnan()
        said = torch.where(batch.margin > 0, self.yes, self.no)
        answers[..., 0] = torch.where(yes_no, said, answers[..., 0])
        answers[..., 1] = torch.where(yes_no, self.eos, answers[..., 1])
        # Where each token of the answer is predicted.
        at = self.lengths[batch.wording][..., None] - 1 + torch.arange(ANSWER_LENGTH)
        labels.scatter_(2, at, answers)
        # The answer is read in one step later than it is predicted; the last token is never an input.
        read = answers[..., :-1].masked_fill(answers[..., :-1] == IGNORE, self.pad)
        tokens.scatter_(2, at[..., 1:], read)
        soft = torch.zeros_like(labels, dtype=torch.bool).scatter_(2, at[..., :1], yes_no[..., None])
        return tokens, labels, soft


def draw_questions(
    scene: Scene, found: dict[str, Margin], single: Tensor, packer: Packer, rng: torch.Generator
) -> QuestionBatch:
    """QUESTIONS different kinds a picture, by their weights, each in a wording drawn at random.

    Pictures that are not of a ``single`` [B] scene are asked no open questions.
    """
    count = len(scene)
    kinds = (*YES_NO_KINDS, *OPEN_KINDS)
    weights = torch.stack([found[kind].weight for kind in YES_NO_KINDS], 1)
    weights = torch.cat([weights, OPEN_WEIGHT * single[:, None].expand(-1, len(OPEN_KINDS))], 1)
    picked = torch.multinomial(weights, QUESTIONS, generator=rng)  # [B, Q]
    unknown = torch.full((count, len(OPEN_KINDS)), float("nan"))
    yes = torch.stack([found[kind].yes for kind in YES_NO_KINDS], 1)
    no = torch.stack([found[kind].no for kind in YES_NO_KINDS], 1)
    yes, no = (torch.cat([odds, unknown], 1).gather(1, picked) for odds in (yes, no))
    choice = torch.rand(count, QUESTIONS, generator=rng)
    by_kind = [[i for i, wording in enumerate(WORDINGS) if wording.kind == kind] for kind in kinds]
    # Each kind's wordings, repeated to as many for all: 60 is divided by 1 to 6.
    table = torch.tensor([[some[index % len(some)] for index in range(60)] for some in by_kind])
    wording = table[picked].gather(2, (choice * 60).long()[..., None])[..., 0]
    signs = torch.tensor([w.sign for w in WORDINGS])[wording]
    texts = open_answers(scene)
    answers = torch.full((count, QUESTIONS, ANSWER_LENGTH), IGNORE)
    for row, column in (picked >= len(YES_NO_KINDS)).nonzero().tolist():
        tokens = [*packer.ids(texts[kinds[picked[row, column]]][row]), packer.eos]
        answers[row, column, : len(tokens)] = torch.tensor(tokens)
    return QuestionBatch(wording, torch.where(signs > 0, yes, no), answers)


class Learner(nn.Module):
    """The VLM and its auxiliary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.packer = Packer()
        self.vlm = build_model(self.packer.tokenizer)
        self.vlm.set_attn_implementation("eager")
        self.heads = SceneHeads(WIDTH, PATCH, WIDTH, IMAGE_TOKENS)
        # With half precision, in 0.4 of the time.
        self.see_and_read = torch.compile(self._see_and_read, dynamic=False)

    def _see_and_read(self, images: Tensor, suffixes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `see` and `read` return."""
        patches, tokens = self.see(images)
        return patches, tokens, self.read(tokens, suffixes)

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches [B, N, D] and the language model's picture tokens [B, T, D] of images in [0, 1]."""
        pixels = (images - 0.5) / 0.5
        mask = torch.ones(len(images), images.shape[-1] // PATCH, images.shape[-1] // PATCH, dtype=torch.bool)
        patches = self.vlm.model.vision_model(pixels, patch_attention_mask=mask).last_hidden_state
        return patches, self.vlm.model.connector(patches)

    def read(self, tokens: Tensor, suffixes: Tensor) -> Tensor:
        """Hidden states [B, Q, length, D] of packed suffixes [B, Q, length] behind the picture's tokens."""
        packer, embed = self.packer, self.vlm.get_input_embeddings()
        prefix = embed(packer.prefix)[None].repeat(len(tokens), 1, 1)
        prefix = prefix.index_copy(1, packer.image_positions, tokens)
        row = torch.cat([prefix, embed(suffixes.flatten(1))], 1)
        out = self.vlm.model.text_model(
            inputs_embeds=row, attention_mask=packer.mask.expand(len(row), -1, -1, -1),
            position_ids=packer.positions, use_cache=False,
        ).last_hidden_state  # fmt: skip
        return out[:, len(packer.prefix) :].unflatten(1, (suffixes.shape[1], packer.length))

    def answer_loss(self, hidden: Tensor, labels: Tensor, soft: Tensor, margin: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the answers, against soft Yes-No targets in excess of their own entropy."""
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


def make_part(pictures: Pictures, count: int, rng: torch.Generator) -> list[Blends]:
    """``count`` pictures, a share of them double blends."""
    double = round(DOUBLE * count)
    return [Blends.of_one(*pictures.draw(count - double, rng)), blended_pictures(double, rng)]


@dataclass
class StepOutput:
    """What the VLM was asked about a batch of pictures, and what it saw and said."""

    overlays: Overlays
    margins: dict[str, Margin]
    patches: Tensor  # [B, N, D]
    tokens: Tensor  # [B, T, D']
    terms: dict[str, Tensor]  # of the loss


def forward_step(learner: Learner, seen: Blends, rng: torch.Generator) -> StepOutput:
    """Lay visual prompts over pictures, ask about them, and compare the answers with the truth."""
    overlays = sample_overlays(seen.first, seen.first_rendering, rng)
    images = augment(overlays.lay_over(seen.images), rng)
    true = seen.margins(overlays)
    batch = draw_questions(seen.first, true, seen.single, learner.packer, rng)
    suffixes, labels, soft = learner.packer.rows(batch)
    with half_precision():
        patches, tokens, hidden = learner.see_and_read(images, suffixes)
    terms = learner.answer_loss(hidden.float(), labels, soft, batch.margin)
    return StepOutput(overlays, true, patches.float(), tokens.float(), terms)


def task(samples: int, folder: Path, seed: int) -> Task:
    warm = (folder / "vlm").exists()
    learner = load_learner(folder) if warm else Learner()
    pictures = Pictures(folder, generated=0.0)

    def make_chunk(rng: torch.Generator) -> Blends:
        parts = [make_part(pictures, PART, rng) for _ in range(CHUNK // PART)]
        return Blends.concatenate([one for part in parts for one in part])

    chunks = Chunks(make_chunk, seed, CHUNK * REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        seen = chunks.at(step * batch_size)[torch.randint(CHUNK, (batch_size,), generator=rng)]
        output = forward_step(learner, seen, rng)
        heads, one = learner.heads, seen.single.nonzero()[:, 0]
        scene = seen.first[one], seen.first_rendering[one], output.overlays[one]
        return {
            **output.terms,
            "scene": heads.loss(output.patches[one], output.tokens[one], *scene),
            "relations": heads.relations_loss(output.tokens, output.margins),
        }

    rate = 8e-4 if warm else 1.2e-3
    return Task("vlm", learner, loss, samples, batch_size=48, learning_rate=rate, muon=hidden, warm=warm)


def load_learner(folder: Path) -> Learner:
    """The VLM that was exported to ``folder``, with new auxiliary heads."""
    learner = Learner()
    exported: Any = AutoModelForImageTextToText.from_pretrained(folder / "vlm", dtype=torch.float32)
    learner.vlm.load_state_dict(exported.state_dict())
    return learner


def hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and ".layers." in name


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the averaged VLM with its processor, in half precision."""
    training.use_average()
    learner = training.task.modules
    if not isinstance(learner, Learner):
        raise TypeError(f"expected the VLM's training, got that of {training.task.name}")
    learner.vlm.half().save_pretrained(folder / "vlm")
    build_processor(learner.packer.tokenizer).save_pretrained(folder / "vlm")
    return {}
