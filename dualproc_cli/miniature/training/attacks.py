"""Attacks on the VLM: what is learned to make it give certain answers, hardly kept from spoiling pictures.

Adapters are, and for questions without a visual prompt the steering of noise and conditioning too. The scene
reader reads each attack's pictures, and they are kept in a file. `adversarial` trains the VLM on
them. Several processes may attack at once, each with a seed of its own.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.drawing import draw_seeds
from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.jitter import jittered
from dualproc_cli.keep import distance
from dualproc_cli.learning.phase import drawing_steered, steering_of
from dualproc_cli.miniature.training import vlm
from dualproc_cli.miniature.training.attack_goals import ATTACKED_KINDS, AttackGoal, sample_goal
from dualproc_cli.miniature.training.loop import half_precision, seeded
from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.reader import load_reader, read
from dualproc_cli.miniature.world.scene import SIZE, Scene
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec, JitterSpec, KeepSpec

log = logging.getLogger("dualproc.miniature")

ATTACK_BATCH = 12  # pictures a step
RANK = 16  # of the adapters
KEPT = 8  # steps of an attack whose pictures are kept, from the first to the last
# Drawn for each attack.
STEPS = (40, 80, 140, 200)
LEARNING_RATES = (3e-4, 6e-4, 1.2e-3)
STEERED = 0.75  # share of the attacks by questions without a visual prompt that steer
STEERING_RATES = (1e-3, 2e-3, 4e-3)
KEEPS = (
    KeepSpec(), KeepSpec(picture=1), KeepSpec(picture=4), KeepSpec(structure=6),
    KeepSpec(structure=15, smoothness=4), KeepSpec(matting=10, recoloring=10),
)  # fmt: skip
JITTERS = (JitterSpec(), JitterSpec(noise=0.03, shift=0.06))


@dataclass
class AttackPictures(Batched):
    """N pictures of attacks.

    Attributes:
        images: [N, 3, H, W] uint8.
        scene: what the scene reader read off them.
        residual: [N] root mean square of what it does not explain.
    """

    images: Tensor
    scene: Scene
    residual: Tensor

    def save(self, path: Path) -> None:
        """Write them to a safetensors file."""
        tensors = {"images": self.images, "residual": self.residual, **vars(self.scene)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({name: value.cpu().contiguous() for name, value in tensors.items()}))

    @staticmethod
    def load(path: Path) -> "AttackPictures":
        """Read what `save` wrote, to the training's device."""
        device = torch.get_default_device()
        tensors = {name: value.to(device) for name, value in load_file(path).items()}
        images, residual = tensors.pop("images"), tensors.pop("residual")
        return AttackPictures(images, Scene(**tensors), residual)


def attack(folder: Path, seed: int, count: int, kinds: Sequence[str] = ATTACKED_KINDS) -> None:
    """Attack the VLM of ``folder`` ``count`` times; keep the pictures there under ``attacks/SEED-*``.

    Args:
        folder: of the training.
        seed: of everything random.
        count: how many there are, each with a goal of its own.
        kinds: first words of the kinds of question among which goals are drawn, out of `ATTACKED_KINDS`.

    Raises:
        UserError: a kind is none of them.
    """
    if unknown := sorted(set(kinds) - set(ATTACKED_KINDS)):
        known = ", ".join(dict.fromkeys(ATTACKED_KINDS))
        raise UserError(f"--about {' '.join(unknown)}: expected kinds of question, out of {known}")
    rng = seeded(seed)
    spec = GeneratorSpec(
        model=str(folder / "generator"), width=SIZE, height=SIZE, steps=1, guidance_scale=0.0, dtype="float32"
    )
    generator = load_generator(spec, torch.get_default_device())
    generator.add_adapter(AdapterSpec(rank=RANK, scale=1.0), seed)
    fresh = generator.adapter_state()
    networks, reader = vlm.load_networks(folder).requires_grad_(False), load_reader(folder / "reader")
    for number in range(count):
        generator.load_adapter_state(fresh)
        images = _attack(
            generator, networks, sample_goal(ATTACK_BATCH, rng, kinds), f"{number + 1} of {count}", rng
        )
        reading = read(reader, images)
        log.info(
            "attacks: residuals %s", [round(float(one), 3) for one in reading.residual.view(KEPT, -1).mean(1)]
        )
        found = AttackPictures((255 * images).round().to(torch.uint8), reading.scene, reading.residual)
        found.save(folder / "attacks" / f"{seed}-{number}.safetensors")


@dataclass(frozen=True)
class Plan:
    """How an attack is learned.

    Attributes:
        steers: whether it steers noise and conditioning; otherwise it moves an adapter.
        steps: how many.
        rate: learning rate.
        pull: holds an adapter's pictures to the base's; steering is not held.
        jitter: of the pictures with their visual prompts.
    """

    steers: bool
    steps: int
    rate: float
    pull: KeepSpec
    jitter: JitterSpec

    @classmethod
    def draw(cls, goal: AttackGoal, rng: torch.Generator) -> "Plan":
        """Draw one for a goal."""

        def one_of(choices: Sequence[Any]) -> Any:
            return choices[int(torch.randint(len(choices), (), generator=rng))]

        steers = not goal.is_about_visual_prompt and float(torch.rand((), generator=rng)) < STEERED
        steps, rate = one_of(STEPS), one_of(STEERING_RATES if steers else LEARNING_RATES)
        pull, jitter = one_of(KEEPS), one_of(JITTERS)
        return cls(steers, steps, rate, KeepSpec() if steers else pull, jitter)

    def __str__(self) -> str:
        """Say all of it."""
        what, keep = "steering" if self.steers else "adapter", self.pull.model_dump(exclude_defaults=True)
        jitter = ", jitter" if self.jitter.noise else ""
        return f"{what}, {self.steps} steps at {self.rate:g}, keep {keep}{jitter}"


def _attack(
    generator: Generator, networks: vlm.VlmNetworks, goal: AttackGoal, name: str, rng: torch.Generator
) -> Tensor:
    """Learn to reach a goal; return pictures [KEPT * ATTACK_BATCH, 3, H, W] of its steps."""
    plan = Plan.draw(goal, rng)
    parameters = generator.adapter_parameters()
    if plan.steers:
        generator.add_steering(("noise", "conditioning"), seed=int(torch.randint(2**31, (), generator=rng)))
        parameters = list(steering_of(generator).parameters())
    optimizer = torch.optim.Adam(parameters, plan.rate)
    kept_at = {round(index * (plan.steps - 1) / (KEPT - 1)) for index in range(KEPT)}
    kept, losses = [], []
    for step in range(plan.steps):
        prompts, seeds = goal.sample_prompts(ATTACK_BATCH, rng), draw_seeds(rng, ATTACK_BATCH)
        with half_precision(), drawing_steered(generator) if plan.steers else nullcontext():
            images = generator.render(prompts, seeds, gradient=GradientSpec())
            loss = answer_loss(networks, goal, jittered(goal.overlays.lay_over(images), plan.jitter, rng))
        losses.append(loss.detach())
        if plan.pull.matters:
            with torch.no_grad(), generator.without_adapter():
                base = generator.render(prompts, seeds)
            loss = loss + distance(images.float(), base, plan.pull)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in kept_at:
            kept.append(images.detach().float())
    log.info("attack %s: %s (%s): loss %.2f to %.2f", name, goal, plan, float(losses[0]), float(losses[-1]))
    return torch.cat(kept)


def answer_loss(networks: vlm.VlmNetworks, goal: AttackGoal, images: Tensor) -> Tensor:
    """Return the mean of -log P of the goal's answers about images [B, 3, H, W] with their visual prompts."""
    packer = networks.packer
    wordings = torch.tensor([wording for wording, _ in goal.answers])
    wanted = torch.tensor([packer.answer(answer)[0] for _, answer in goal.answers])
    _, tokens = networks.encode(images)
    suffixes = packer.questions[wordings].expand(len(images), -1, -1)
    hidden = networks.hidden_states(tokens, suffixes)  # [B, Q, length, D]
    at = hidden[:, torch.arange(len(wordings)), packer.question_lengths[wordings] - 1]
    logits = networks.vlm.lm_head(at).float()
    return F.cross_entropy(logits.flatten(0, 1), wanted.repeat(len(images)))
