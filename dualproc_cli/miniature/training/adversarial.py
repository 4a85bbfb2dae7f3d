"""Adversarial training of the VLM, on pictures of adapters that were learned to attack it.

In one round, adapters are learned against the VLM as it is, each for another question and hardly kept close
to the base generator. The scene reader labels their pictures, and the VLM is trained on these among others.
The next call is another round, against the VLM that came out.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.drawing import draw_seeds
from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.miniature.training import vlm
from dualproc_cli.miniature.training.blends import Blends
from dualproc_cli.miniature.training.loop import Chunks, Task, half_precision, seeded
from dualproc_cli.miniature.training.packing import QUESTIONS
from dualproc_cli.miniature.training.pictures import TrainingPictures
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.language import WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import MAX_LOG_ODDS, margins
from dualproc_cli.miniature.world.reader import Reader, load_reader, read
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY, SIZE, SUBJECTS, sample_prompts, sample_scenes
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec

log = logging.getLogger("dualproc.miniature")

ATTACKS = 32  # adapters a round
ATTACK_STEPS, ATTACK_BATCH = 42, 12  # steps of an attack, and pictures a step
KEPT_FROM, KEPT_EVERY = 9, 6  # which steps' pictures are kept: the first, and every so many after it
# Drawn for each attack: learning rate, and weight of the mean absolute distance to the base's pictures.
LEARNING_RATES = (4e-4, 8e-4, 1.6e-3)
KEEP_WEIGHTS = (0.0, 1.0, 4.0)
# First words of the kinds of question that are attacked; repeated ones are attacked more often.
ATTACKED_KINDS = (
    "horizon", "palette", "line-weight", "closer", "closer", "inside", "inside", "on-line", "attribute"
)  # fmt: skip
ADVERSARIAL = 0.3  # share of the pictures that come from attacks
GENERATED = 0.4  # share that the generator draws of the other pictures of one scene

# Root mean square distance to the nearest scene. Up to SOUND, a picture is as good as the generator's own;
# from CORRUPTED on, the answer to every yes-no question about it is No.
SOUND, CORRUPTED = 0.06, 0.11
ERROR_WEIGHT = 2.0  # how much an error at the subject, in units of its contrast, takes from its share


@dataclass(frozen=True)
class AttackGoal:
    """What an attack makes the VLM say Yes to.

    Attributes:
        overlays: one visual prompt, repeated for ATTACK_BATCH pictures.
        wording: index into WORDINGS of the question about it.
        subject: index into SUBJECTS of the subject that the question is about, NOBODY without one.
    """

    overlays: Overlays
    wording: int
    subject: int

    def sample_prompts(self, rng: torch.Generator) -> list[str]:
        """Sample ATTACK_BATCH prompts whose nearer subject is the goal's, or any."""
        kind, look = sample_prompts(ATTACK_BATCH, rng)
        if self.subject != NOBODY:
            kind[:, 0] = self.subject
            kind[:, 1] = torch.where(kind[:, 1] == self.subject, NOBODY, kind[:, 1])
        return captions(kind, look, rng)


def sample_goal(rng: torch.Generator) -> AttackGoal:
    """Sample a visual prompt over some scene and a question that can be asked about it."""
    about = ATTACKED_KINDS[int(torch.randint(len(ATTACKED_KINDS), (), generator=rng))]
    scene = sample_scenes(64, rng)
    rendering = render(scene)
    overlays = sample_overlays(scene, rendering, rng)
    found = margins(scene, rendering, overlays)
    askable = [
        (kind, int(row))
        for kind in YES_NO_KINDS
        if kind.split()[0] == about
        for row in found[kind].weight.nonzero()[:, 0]
    ]
    kind, row = askable[int(torch.randint(len(askable), (), generator=rng))]
    wordings = [index for index, wording in enumerate(WORDINGS) if wording.kind == kind]
    subject = SUBJECTS.index(kind.split()[1]) if " " in kind else NOBODY
    wording = wordings[int(torch.randint(len(wordings), (), generator=rng))]
    return AttackGoal(overlays[torch.full((ATTACK_BATCH,), row)], wording, subject)


def adversarial_pictures(folder: Path, seed: int) -> Blends:
    """Attack the VLM in ``folder`` ATTACKS times, and return the pictures, labelled by the scene reader."""
    rng = seeded(seed)
    spec = GeneratorSpec(
        model=str(folder / "generator"), width=SIZE, height=SIZE, steps=1, guidance_scale=0.0
    )
    generator = load_generator(spec, torch.get_default_device())
    generator.add_adapter(AdapterSpec(rank=8, scale=1.0), seed)
    fresh = generator.adapter_state()
    networks, reader = vlm.load_networks(folder).requires_grad_(False), load_reader(folder / "reader")
    labelled = []
    for number in range(ATTACKS):
        generator.load_adapter_state(fresh)
        labelled.append(label(reader, _attack(generator, networks, number, rng)))
    return Blends.concatenate(labelled)


def _attack(generator: Generator, networks: vlm.VlmNetworks, number: int, rng: torch.Generator) -> Tensor:
    """Learn an adapter to make the VLM say Yes to one goal; return pictures [N, 3, H, W] of its steps."""
    goal, packer = sample_goal(rng), networks.packer
    suffix = packer.questions[goal.wording].expand(ATTACK_BATCH, QUESTIONS, -1)
    at = int(packer.question_lengths[goal.wording]) - 1
    rate, keep = (
        choices[int(torch.randint(3, (), generator=rng))] for choices in (LEARNING_RATES, KEEP_WEIGHTS)
    )
    parameters = generator.adapter_parameters()
    optimizer = torch.optim.Adam(parameters, rate)
    kept, log_odds = [], torch.zeros(())
    for step in range(ATTACK_STEPS):
        prompts, seeds = goal.sample_prompts(rng), draw_seeds(rng, ATTACK_BATCH)
        with half_precision():
            images = generator.render(prompts, seeds, gradient=GradientSpec())
            _, tokens = networks.encode(goal.overlays.lay_over(images))
            logits = networks.vlm.lm_head(networks.hidden_states(tokens, suffix)[:, 0, at]).float()
        log_odds = logits[:, packer.yes] - logits[:, packer.no]
        loss = F.softplus(-log_odds).mean()
        if keep:
            with torch.no_grad(), generator.without_adapter():
                base = generator.render(prompts, seeds)
            loss = loss + keep * (images - base).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= KEPT_FROM and (step - KEPT_FROM) % KEPT_EVERY == 0:
            kept.append(images.detach())
    log.info(
        "adversarial: attack %d of %d: %s (learning rate %g, keep %g): P(Yes) %.2f",
        number + 1, ATTACKS, WORDINGS[goal.wording].text, rate, keep,
        float(log_odds.detach().sigmoid().mean()),
    )  # fmt: skip
    return torch.cat(kept)


def label(reader: Reader, images: Tensor) -> Blends:
    """Label images [B, 3, H, W] in [0, 1] by the scenes that the reader finds in them.

    Each is labelled as a blend of its scene and the same scene without the nearer subject. The subject's
    share is how much of it is visible, less its errors. The more a picture is corrupted, the lower the upper
    limit of its log-odds.
    """
    reading = read(reader, images)
    scene = reading.scene
    gone = replace(scene, kind=torch.stack([torch.full_like(scene.kind[:, 0], NOBODY), scene.kind[:, 1]], 1))
    rendering, empty = render(scene), render(gone)
    subject = rendering.images - empty.images
    contrast = subject.square().sum((1, 2, 3)).clamp(min=1e-3)
    visible = ((images - empty.images) * subject).sum((1, 2, 3)) / contrast
    where = (subject.abs().amax(1, keepdim=True) > 0.02).float()
    error = ((images - rendering.images).square() * where).sum((1, 2, 3)) / contrast
    share = visible.clamp(0, 1) / (1 + ERROR_WEIGHT * error)
    corruption = ((reading.residual - SOUND) / (CORRUPTED - SOUND)).clamp(0, 1)
    max_log_odds = torch.where(corruption > 0, 5 - 8 * corruption, MAX_LOG_ODDS)
    return Blends(images, scene, rendering, gone, empty, share, max_log_odds)


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of a round of adversarial training, on generator, VLM and reader of ``folder``."""
    networks, pictures = vlm.load_networks(folder), TrainingPictures(folder, GENERATED)
    networks.heads.requires_grad_(False)
    attacked = adversarial_pictures(folder, seed)
    few = round(ADVERSARIAL * vlm.PART)

    def make_chunk(rng: torch.Generator) -> Blends:
        parts = []
        for _ in range(vlm.CHUNK // vlm.PART):
            parts.append(attacked[torch.randint(len(attacked.images), (few,), generator=rng)])
            parts += vlm.make_part(pictures, vlm.PART - few, rng)
        return Blends.concatenate(parts)

    chunks = Chunks(make_chunk, seed, vlm.CHUNK * vlm.REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        which = torch.randint(vlm.CHUNK, (batch_size,), generator=rng)
        return vlm.forward_step(networks, chunks.at(step * batch_size)[which], rng).terms

    return Task("adversarial", networks, loss, samples, 48, 4e-4, vlm.moved_by_muon, warm_start=True)


export = vlm.export
