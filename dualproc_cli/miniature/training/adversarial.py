"""Adversarial training of the VLM, on pictures of adapters that were learned to attack it (`attacks`).

The scene reader has labelled the pictures, and the VLM is trained on these among others. Attacks on the VLM
that comes out, and another call, are another round; the pictures of earlier rounds stay. Meanwhile scenes are
recoloured to fool it about palettes (`color_attack`).
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.miniature.training import vlm
from dualproc_cli.miniature.training.attacks import AttackPictures
from dualproc_cli.miniature.training.augment import augment
from dualproc_cli.miniature.training.blends import Blends, log_odds_limit
from dualproc_cli.miniature.training.color_attack import (
    POOL,
    ColorAttack,
    ColorHeads,
    ask,
    margin,
    palettes_alone,
)
from dualproc_cli.miniature.training.loop import Chunks, Task, half_precision, seeded
from dualproc_cli.miniature.training.pictures import TrainingPictures
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY

RECOLORED = 1  # scenes that are attacked by their colours, for each other picture
ADVERSARIAL = 0.2  # share of the pictures that come from attacks
GENERATED = 0.4  # share that the generator draws of the other pictures of one scene
ERROR_WEIGHT = 2.0  # how much an error at the subject, in units of its contrast, takes from its share
WHOLE = 0.9  # share from which on a subject counts as all there


@torch.no_grad()
def label(images: Tensor, reading: Reading) -> Blends:
    """Label images [B, 3, H, W] in [0, 1] by the scenes that the reader found in them.

    Each is labelled as a blend of its scene and the same scene without the nearer subject. The subject's
    share is how much of it is visible, less its errors. The more a picture is corrupted, the lower the upper
    limit of its log-odds.
    """
    scene = reading.scene
    gone = replace(scene, kind=torch.stack([torch.full_like(scene.kind[:, 0], NOBODY), scene.kind[:, 1]], 1))
    rendering, empty = render(scene), render(gone)
    subject = rendering.images - empty.images
    contrast = subject.square().sum((1, 2, 3)).clamp(min=1e-3)
    visible = ((images - empty.images) * subject).sum((1, 2, 3)) / contrast
    where = (subject.abs().amax(1, keepdim=True) > 0.02).float()
    error = ((images - rendering.images).square() * where).sum((1, 2, 3)) / contrast
    share = visible.clamp(0, 1) / (1 + ERROR_WEIGHT * error)
    share = torch.where(share > WHOLE, 1.0, share)
    limit = log_odds_limit(reading.residual)
    return Blends(images, scene, rendering, gone, empty, share, limit, reading.residual)


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of a round of adversarial training, on generator, VLM and attacks of ``folder``.

    Raises:
        UserError: there are no attacks.
    """
    networks, pictures = vlm.load_networks(folder), TrainingPictures(folder, GENERATED)
    networks.heads.requires_grad_(False)
    files = sorted((folder / "attacks").glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder / 'attacks'}: no attacks; make some with: attacks")
    attacked = AttackPictures.concatenate([AttackPictures.load(file) for file in files])
    few = round(ADVERSARIAL * vlm.PART)

    def make_chunk(rng: torch.Generator) -> Blends:
        parts = []
        for _ in range(vlm.CHUNK // vlm.PART):
            drawn = attacked[torch.randint(len(attacked.images), (few,), generator=rng)]
            parts.append(label(drawn.images / 255, Reading(drawn.scene, drawn.residual)))
            parts += vlm.make_part(pictures, vlm.PART - few, rng)
        return Blends.concatenate(parts)

    chunks = Chunks(make_chunk, seed, vlm.CHUNK * vlm.REUSE)
    attack = ColorAttack(seeded(seed))
    networks.add_module("color_attack", attack)  # so that checkpoints hold its state
    heads = ColorHeads()
    networks.add_module("color_heads", heads)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        which = torch.randint(vlm.CHUNK, (batch_size,), generator=rng)
        terms = vlm.forward_step(networks, chunks.at(step * batch_size)[which], rng).terms
        about_colors = color_step(networks, attack, heads, RECOLORED * batch_size, rng)
        return terms | {f"color {name}": value for name, value in about_colors.items()}

    return Task("adversarial", networks, loss, samples, 24, 4e-4, vlm.moved_by_muon, warm_start=True)


def color_step(
    networks: vlm.VlmNetworks, attack: ColorAttack, heads: ColorHeads, count: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """Ask about ``count`` scenes of the pool, move them towards Yes, and return the loss's terms."""
    packer = networks.packer
    which = torch.randperm(POOL, generator=rng)[:count]
    logits, spots = (moved[which].requires_grad_(True) for moved in (attack.logits, attack.spots))
    shown = attack.draw(which, logits, spots)
    batch = ask(margin(shown), packer, rng)
    suffixes, labels, soft = packer.pack(batch)
    images, _ = augment(palettes_alone(shown.palettes).lay_over(shown.images), rng)
    pixels = images.detach().requires_grad_(True)
    with half_precision():
        _, tokens, hidden = networks.compiled_forward(pixels, suffixes)
    hidden = hidden.float()
    log_p = networks.vlm.lm_head(hidden[soft]).log_softmax(-1)
    odds = (log_p[:, packer.yes] - log_p[:, packer.no]).view_as(batch.wording)
    towards_yes = (odds * packer.signs[batch.wording]).sum()
    (upwards,) = torch.autograd.grad(towards_yes, pixels, retain_graph=True)
    moves = torch.autograd.grad(images, (logits, spots), upwards)
    attack.move(which, moves[0], moves[1], rng)
    terms = networks.answer_loss(hidden, labels, soft, batch.margin)
    compared = heads.loss(tokens.float(), shown)
    return {name: terms[name] for name in ("answer", "margin")} | {"heads": compared}


export = vlm.export
