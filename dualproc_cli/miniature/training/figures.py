"""Held-out figures of the miniature's networks, for its model card."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dualproc_cli.measures.color import ciede2000
from dualproc_cli.miniature.training.blends import Blends
from dualproc_cli.miniature.training.color_attack import ask, palettes_alone, recolor
from dualproc_cli.miniature.training.packing import QuestionBatch, sample_questions
from dualproc_cli.miniature.training.vlm import VlmNetworks
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.coupling import TOKEN_CHANNELS, TOKENS, uniforms_in
from dualproc_cli.miniature.world.language import OPEN_KINDS, WORDINGS
from dualproc_cli.miniature.world.overlays import sample_overlays
from dualproc_cli.miniature.world.questions import shows_subject_color
from dualproc_cli.miniature.world.reader import Reader, Reading, read
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    NOBODY,
    SUBJECTS,
    Scene,
    sample_prompts,
    sample_scenes,
    scene_from_uniforms,
    with_random_colors,
)

SEED = 2_000_003  # of fresh scenes and fresh noise: no training uses it
OFF = 15.0, 25.0  # CIEDE2000 by which one colour of a palette is off; no palette's is at 11
PALETTE_PARTS = {"none": None, "sky": 0, "ground": 1, "subject": 2}
LAMP_ALONE = torch.tensor([SUBJECTS.index("lamp"), NOBODY])
CLEAR = 2.6  # log-odds beyond which an answer is clear; at twice the tolerance they are -2.7


@dataclass
class AnswerCount:
    """How the VLM answered one kind of question.

    Attributes:
        asked: how often it was asked.
        right: how often it was right.
        clear: how often the answer was clear.
        clear_right: how often it was right if the answer was clear.
        yes: for each question whether Yes was answered, by whether Yes is true.
    """

    asked: int = 0
    right: int = 0
    clear: int = 0
    clear_right: int = 0
    yes: dict[bool, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, right: bool, clear: bool) -> None:
        """Count one answer."""
        self.asked += 1
        self.right += right
        self.clear += clear
        self.clear_right += right and clear

    def figures(self) -> dict[str, Any]:
        """Return accuracies, and the share of Yes if Yes and No were equally often true."""
        rates = [sum(said) / len(said) for said in self.yes.values() if said]
        return {
            "asked": self.asked,
            "right": round(self.right / self.asked, 3),
            "right_when_clear": round(self.clear_right / max(self.clear, 1), 3),
            "yes_share_balanced": round(sum(rates) / len(rates), 3) if rates else None,
        }


@torch.no_grad()
def vlm_figures(networks: VlmNetworks, batches: Iterable[Blends]) -> dict[str, dict[str, Any]]:
    """Return the VLM's accuracy by kind of question about batches of pictures."""
    rng, packer = torch.Generator().manual_seed(SEED + 1), networks.packer
    counts: dict[str, AnswerCount] = defaultdict(AnswerCount)
    for seen in batches:
        scene = seen.first
        overlays = sample_overlays(scene, seen.first_rendering, rng)
        batch = sample_questions(
            scene, seen.margins(overlays), seen.shows_one_scene, seen.is_unclear, packer, rng
        )
        logits, wanted = _answers(networks, overlays.lay_over(seen.images), batch)
        for row in range(len(scene)):
            for column in range(batch.wording.shape[1]):
                kind = WORDINGS[int(batch.wording[row, column])].kind
                count = counts[kind.split()[0]]
                answer, margin = logits[row, column], batch.margin[row, column]
                if kind in OPEN_KINDS:
                    count.add(bool(answer.argmax() == wanted[row, column]), clear=True)
                elif margin != 0:  # 0 for two points in the sky: neither is closer
                    said = bool(answer[packer.yes] > answer[packer.no])
                    true = bool(margin > 0)
                    count.yes[true].append(said)
                    count.add(said == true, bool(margin.abs() > CLEAR))
    return {kind: count.figures() for kind, count in sorted(counts.items())}


def _answers(networks: VlmNetworks, images: Tensor, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
    """Return the logits [B, Q, V] of the first token of each answer, and the tokens wanted [B, Q]."""
    packer = networks.packer
    _, tokens = networks.encode(images)
    suffixes, labels, _ = packer.pack(batch)
    at = packer.question_lengths[batch.wording] - 1
    hidden = networks.hidden_states(tokens, suffixes)
    gather = at[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    logits = networks.vlm.lm_head(hidden.gather(2, gather)[:, :, 0])
    return logits, labels.gather(2, at[..., None])[..., 0]


@torch.no_grad()
def palette_figures(networks: VlmNetworks, batches: int = 32, size: int = 64) -> dict[str, float]:
    """Return how often the VLM says that renders have a palette's colours, by the one colour that is off.

    It is off by `OFF`; of two subjects the farther one alone may be. Lamps, which show the least of their
    colour, are told apart too. Scenes that do not show their subject's colour are left out.
    """
    rng = torch.Generator().manual_seed(SEED + 3)
    said: dict[str, list[Tensor]] = defaultdict(list)
    for _ in range(batches):
        scene = with_random_colors(sample_scenes(size, rng), 1.0, rng)
        scene = scene[shows_subject_color(scene)]
        images, share = render(scene).images, torch.rand(len(scene), 3, 1, generator=rng)
        other = torch.lerp(scene.colors, torch.rand(scene.colors.shape, generator=rng), share)
        difference = ciede2000(scene.colors, other)
        off = (difference > OFF[0]) & (difference < OFF[1])
        for name, part in PALETTE_PARTS.items():
            palette, rows = scene.colors.clone(), torch.ones(len(scene), dtype=torch.bool)
            if part is not None:
                palette[:, part], rows = other[:, part], off[:, part]
            said[name].append(_says_yes(networks, images[rows], palette[rows], rng))
            if name == "subject":
                rows = rows & (scene.kind == LAMP_ALONE).all(1)
                said["a lamp"].append(_says_yes(networks, images[rows], palette[rows], rng))
        shown = recolor(scene, torch.cat([scene.colors, other[:, 2:]], 1), scene.colors)
        rows = shown.seen[:, 3] & off[:, 2]
        said["farther subject"].append(_says_yes(networks, shown.images[rows], scene.colors[rows], rng))
    return {name: round(float(torch.cat(found).float().mean()), 3) for name, found in said.items()}


def _says_yes(networks: VlmNetworks, images: Tensor, palettes: Tensor, rng: torch.Generator) -> Tensor:
    """Return whether the VLM says that images [B, 3, H, W] match palettes [B, 3, 3], for each question."""
    if not len(images):  # not every batch shows two subjects whose farther one can be off
        return torch.zeros(0, dtype=torch.bool)
    batch = ask(torch.ones(len(images)), networks.packer, rng)
    logits, _ = _answers(networks, palettes_alone(palettes).lay_over(images), batch)
    affirms = logits[..., networks.packer.yes] > logits[..., networks.packer.no]
    return (affirms == (batch.margin > 0)).flatten()


def renders(batches: int, size: int = 64) -> Iterator[Blends]:
    """Yield renders [size, 3, H, W] of fresh scenes."""
    rng = torch.Generator().manual_seed(SEED)
    for _ in range(batches):
        scene = sample_scenes(size, rng)
        rendering = render(scene)
        yield Blends.from_one_scene(rendering.images, scene, rendering, torch.zeros(size))


def corrupted_renders(batches: int) -> Iterator[Blends]:
    """Yield renders of fresh scenes, each corrupted."""
    rng = torch.Generator().manual_seed(SEED + 2)
    for seen in renders(batches):
        yield seen.corrupted(rng)


def generated(images: Tensor, reading: Reading, size: int = 64) -> Iterator[Blends]:
    """Yield generated pictures [N, 3, H, W], labelled by what was read off them."""
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        scene = reading.scene[part]
        yield Blends.from_one_scene(images[part], scene, render(scene), reading.residual[part])


def reader_figures(reader: Reader, batches: int = 3) -> dict[str, float]:
    """Return the mean errors of what the scene reader reads off true renders."""
    errors: dict[str, list[Tensor]] = defaultdict(list)
    for seen in renders(batches):
        reading, scene = read(reader, seen.images), seen.first
        found = reading.scene
        errors["horizon_rows"].append((found.horizon - scene.horizon).abs())
        errors["outline_pixels"].append((found.outline - scene.outline).abs())
        errors["colors_ciede2000"].append(ciede2000(found.colors, scene.colors).mean(1))
        errors["place_pixels"].append((found.x[:, 0] - scene.x[:, 0]).abs())
        errors["base_pixels"].append((found.base[:, 0] - scene.base[:, 0]).abs())
        errors["subjects_wrong"].append((found.kind != scene.kind).any(1).float())
        errors["attribute_wrong"].append((found.on[:, 0] != scene.on[:, 0]).float())
        errors["residual"].append(reading.residual)
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in errors.items()}


def generator_scenes(count: int) -> tuple[Tensor, list[str], Scene]:
    """Sample fresh noise [count, TOKENS, TOKEN_CHANNELS], prompts, and the scenes that they stand for."""
    rng = torch.Generator().manual_seed(SEED)
    noise = torch.randn(count, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(count, rng)
    return noise, captions(kind, look, rng), scene_from_uniforms(uniforms_in(noise), kind, look)


def read_in_parts(reader: Reader, images: Tensor, size: int = 64) -> Reading:
    """Read scenes off any number of images [N, 3, H, W], a few at a time."""
    parts = [read(reader, part) for part in images.split(size)]
    return Reading(Scene.concatenate([p.scene for p in parts]), torch.cat([p.residual for p in parts]))


def picture_figures(images: Tensor, scene: Scene, reading: Reading) -> dict[str, Any]:
    """Compare generated pictures, and what was read off them, with the scenes that they should show."""
    error = (images - render(scene).images).square().mean((1, 2, 3))
    found = reading.scene
    alone = scene.kind[:, 1] == NOBODY
    attributes = {}
    for kind, name in enumerate(SUBJECTS):
        these = alone & (scene.kind[:, 0] == kind) & (found.kind[:, 0] == kind)
        on = found.on[these, 0]
        attributes[name] = {
            "as_the_noise_says": round(float((on == scene.on[these, 0]).float().mean()), 3),
            "on_share": round(float(on.float().mean()), 3),
        }
    return {
        "psnr_db": round(float(-10 * error.mean().log10()), 2),
        "subjects_right": round(float((found.kind == scene.kind).all(1).float().mean()), 3),
        "subject_right_alone": round(float((found.kind == scene.kind).all(1)[alone].float().mean()), 3),
        "horizon_error_rows": round(float((found.horizon - scene.horizon).abs().mean()), 2),
        "residual": round(float(reading.residual.mean()), 4),
        "horizon_spread_rows": round(float(found.horizon.std()), 2),
        "attributes": attributes,
    }
