"""Adversarial training of the VLM: it learns on the pictures of adapters that fooled it.

One round: adapters are learned against the VLM as it is, each for another question, hardly kept close to the
base generator. Their pictures are labelled by the independent reader, and the VLM goes on learning with them
among the others. Running it again is another round, against the VLM that came out.
"""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.drawing import draw_seeds
from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.miniature.training import vlm
from dualproc_cli.miniature.training.blends import Blends
from dualproc_cli.miniature.training.loop import Chunks, Task, half_precision, seeded
from dualproc_cli.miniature.training.pictures import Pictures
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.language import WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import FARTHEST, margins
from dualproc_cli.miniature.world.reader import Reader, load_reader, read
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY, SIZE, SUBJECTS, sample_prompts, sample_scenes
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec

log = logging.getLogger("dualproc.miniature")

ATTACKS, BATCH = 32, 12  # adapters, and pictures a step
STEPS, FROM, EVERY = 42, 9, 6  # of an attack, and which of them leave their pictures
RATES = (4e-4, 8e-4, 1.6e-3)
KEEPS = (0.0, 1.0, 4.0)  # weight of the mean absolute distance to the base's pictures
# What is asked, most often what moves a subject.
ASKED = ("horizon", "palette", "line-weight", "closer", "closer", "inside", "inside", "on-line", "attribute")
ATTACKED, GENERATED = 0.3, 0.4  # share of the pictures, and share of the others that the generator draws

# Root mean square distance to the nearest scene: up to the first a picture is as good as the generator's own,
# from the second on, nothing is true of them.
SOUND, CORRUPTED = 0.06, 0.11
UNEXPLAINED = 2.0  # how much an error at the subject, in units of its contrast, takes from its share


def attacked_pictures(folder: Path, seed: int) -> Blends:
    """Pictures of adapters that were learned against the VLM in ``folder``, labelled by the reader."""
    rng = seeded(seed)
    spec = GeneratorSpec(
        model=str(folder / "generator"), width=SIZE, height=SIZE, steps=1, guidance_scale=0.0
    )
    generator = load_generator(spec, torch.get_default_device())
    generator.add_adapter(AdapterSpec(rank=8, scale=1.0), seed)
    fresh = generator.adapter_state()
    learner, reader = vlm.load_learner(folder).requires_grad_(False), load_reader(folder / "reader")
    labelled = []
    for number in range(ATTACKS):
        generator.load_adapter_state(fresh)
        labelled.append(label(reader, _attack(generator, learner, number, rng)))
    return Blends.concatenate(labelled)


def _attack(generator: Generator, learner: vlm.Learner, number: int, rng: torch.Generator) -> Tensor:
    """Learn one question's Yes, whatever becomes of the pictures; returns some on the way [N, 3, H, W]."""
    overlay, wording, subject = _draw_goal(rng)
    suffix = learner.packer.asked[wording].expand(BATCH, vlm.QUESTIONS, -1)
    at = int(learner.packer.lengths[wording]) - 1
    rate, keep = (choices[int(torch.randint(3, (), generator=rng))] for choices in (RATES, KEEPS))
    parameters = generator.adapter_parameters()
    optimizer = torch.optim.Adam(parameters, rate)
    taken, yes = [], torch.zeros(())
    for step in range(STEPS):
        prompts, seeds = _draw_prompts(subject, rng), draw_seeds(rng, BATCH)
        with half_precision():
            images = generator.render(prompts, seeds, gradient=GradientSpec())
            _, tokens = learner.see(overlay.lay_over(images))
            logits = learner.vlm.lm_head(learner.read(tokens, suffix)[:, 0, at]).float()
        yes = logits[:, learner.packer.yes] - logits[:, learner.packer.no]
        loss = F.softplus(-yes).mean()
        if keep:
            with torch.no_grad(), generator.without_adapter():
                base = generator.render(prompts, seeds)
            loss = loss + keep * (images - base).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= FROM and (step - FROM) % EVERY == 0:
            taken.append(images.detach())
    log.info(
        "attack: %d: %s (rate %g, keep %g): P(Yes) %.2f",
        number, vlm.WORDINGS[wording].text, rate, keep, float(yes.detach().sigmoid().mean()),
    )  # fmt: skip
    return torch.cat(taken)


def _draw_goal(rng: torch.Generator) -> tuple[Overlays, int, int]:
    """One visual prompt for all of BATCH pictures, a wording about it, and the subject that it is about."""
    about = ASKED[int(torch.randint(len(ASKED), (), generator=rng))]
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
    which = wordings[int(torch.randint(len(wordings), (), generator=rng))]
    return overlays[torch.full((BATCH,), row)], which, subject


def _draw_prompts(subject: int, rng: torch.Generator) -> list[str]:
    """BATCH prompts of that subject, or of any."""
    kind, look = sample_prompts(BATCH, rng)
    if subject != NOBODY:
        kind[:, 0] = subject
        kind[:, 1] = torch.where(kind[:, 1] == subject, NOBODY, kind[:, 1])
    return captions(kind, look, rng)


def label(reader: Reader, images: Tensor) -> Blends:
    """What the reader finds in images [B, 3, H, W], how much of the subject is there, how sound they are."""
    reading = read(reader, images)
    scene = reading.scene
    gone = replace(scene, kind=torch.stack([torch.full_like(scene.kind[:, 0], NOBODY), scene.kind[:, 1]], 1))
    rendering, empty = render(scene), render(gone)
    subject = rendering.images - empty.images
    contrast = subject.square().sum((1, 2, 3)).clamp(min=1e-3)
    there = ((images - empty.images) * subject).sum((1, 2, 3)) / contrast
    where = (subject.abs().amax(1, keepdim=True) > 0.02).float()
    error = ((images - rendering.images).square() * where).sum((1, 2, 3)) / contrast
    share = there.clamp(0, 1) / (1 + UNEXPLAINED * error)
    corruption = ((reading.residual - SOUND) / (CORRUPTED - SOUND)).clamp(0, 1)
    most = torch.where(corruption > 0, 5 - 8 * corruption, FARTHEST)
    return Blends(images, scene, rendering, gone, empty, share, most)


def task(samples: int, folder: Path, seed: int) -> Task:
    learner, pictures = vlm.load_learner(folder), Pictures(folder, GENERATED)
    learner.heads.requires_grad_(False)
    attacked = attacked_pictures(folder, seed)
    few = round(ATTACKED * vlm.PART)

    def make_chunk(rng: torch.Generator) -> Blends:
        parts = []
        for _ in range(vlm.CHUNK // vlm.PART):
            parts.append(attacked[torch.randint(len(attacked.share), (few,), generator=rng)])
            parts += vlm.make_part(pictures, vlm.PART - few, rng)
        return Blends.concatenate(parts)

    chunks = Chunks(make_chunk, seed, vlm.CHUNK * vlm.REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        which = torch.randint(vlm.CHUNK, (batch_size,), generator=rng)
        return vlm.forward_step(learner, chunks.at(step * batch_size)[which], rng).terms

    return Task(
        "adversarial", learner, loss, samples, batch_size=48, learning_rate=4e-4, muon=vlm.hidden, warm=True
    )


export = vlm.export
