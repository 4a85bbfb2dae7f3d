"""Attacks on the VLM by colours alone: scenes are recoloured until it says that they match a palette.

Far from the palette there are colours that a VLM takes for it: of clean pictures, or in spots where it looks.
Learning finds them. The true answer about a scene is known, so the VLM is trained on the way there. Of two
subjects, whose colour is one in the world, each is recoloured by itself.
"""

import colorsys
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.measures.color import ciede2000, lab
from dualproc_cli.miniature.training.heads import number_loss
from dualproc_cli.miniature.training.packing import NO_ANSWER, QUESTIONS, Packer, QuestionBatch
from dualproc_cli.miniature.training.vlm_model import IMAGE_TOKENS, WIDTH
from dualproc_cli.miniature.world.judging import unevenness
from dualproc_cli.miniature.world.language import WORDINGS
from dualproc_cli.miniature.world.overlays import KINDS, Overlays
from dualproc_cli.miniature.world.questions import SEEN, palette_margin
from dualproc_cli.miniature.world.render import by_subject_color, render
from dualproc_cli.miniature.world.scene import SIZE, UNIFORMS, Scene, sample_prompts, scene_from_uniforms

POOL = 256  # scenes that are being moved
LIFE = 24  # moves of a scene before another takes its place, on the average
LONGEST = 0.5  # root mean square of a move, in logits of a colour; each is drawn between 0 and this
LONGEST_OF_SPOTS = 1.0  # likewise, in units of STAIN
STAINED = 0.5  # share of the scenes that are recoloured unevenly too
SPOTS = 8  # side of the grid on which they are
STAIN = 0.1  # change of a colour in [0, 1] by a unit on the grid
LAB_UNIT = 20.0  # of CIELAB, the unit in which differences are predicted
FAR = 0.03  # how near 0 or 1 a colour starts at most
# Share of the scenes whose sky and ground match from the start, and whose subjects do so in part. Where they
# are rare, a VLM answers by sky and ground, which are larger.
SUBJECT_ALONE = 0.5
# Which parts these are, by equal chance: both subjects or the farther one twice, and the nearer one once.
ALONE = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]])
PAIRS = 0.4  # share of the scenes with two subjects, before those with small subjects are preferred
MORE = 4  # scenes of which one is taken: the smaller its smallest subject is, the likelier
UNSEEN = 0.05  # size, as a share of the picture, that a subject counts for which does not show its colour
PARTS = 4  # of a scene: sky, ground, nearer and farther subject
COLOR_OF = (0, 1, 2, 2)  # by part, which colour of a palette it should have

_ASKING = tuple(index for index, wording in enumerate(WORDINGS) if wording.kind == "palette")


@dataclass
class Recolored:
    """B scenes that were recoloured.

    Attributes:
        scene: all but the farther subjects' colour.
        images: [B, 3, 64, 64] in [0, 1].
        colors: [B, PARTS, 3] RGB in [0, 1] of each part.
        seen: [B, PARTS] bool, whether a part takes the share `SEEN` of the picture; sky and ground do.
        palettes: [B, 3, 3] RGB in [0, 1].
    """

    scene: Scene
    images: Tensor
    colors: Tensor
    seen: Tensor
    palettes: Tensor

    @property
    def wanted(self) -> Tensor:
        """The colour [B, PARTS, 3] that the palette has for each part."""
        return self.palettes[:, COLOR_OF]

    def difference(self) -> Tensor:
        """Return how far each part [B, PARTS] is from its colour, in CIEDE2000."""
        return ciede2000(self.colors, self.wanted)


class ColorAttack(nn.Module):
    """A pool of scenes with a palette each. Its buffers are all of its state.

    Attributes:
        uniforms: [POOL, UNIFORMS] numbers that make the scenes.
        kind: [POOL, 2] their subjects.
        look: [POOL] their looks.
        logits: [POOL, PARTS, 3] colours of their parts, as logits.
        spots: [POOL, 3, SPOTS, SPOTS] what is added around the subjects, in units of STAIN.
        stained: [POOL] whether that is moved too, 0 or 1.
        palettes: [POOL, 3, 3] RGB in [0, 1].
    """

    uniforms: Tensor
    kind: Tensor
    look: Tensor
    logits: Tensor
    spots: Tensor
    stained: Tensor
    palettes: Tensor

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        for name, value in _fresh(POOL, rng).items():
            self.register_buffer(name, value)

    def draw(self, which: Tensor, logits: Tensor, spots: Tensor) -> Recolored:
        """Draw the scenes of rows ``which`` [B].

        Args:
            which: rows of the pool.
            logits: [B, PARTS, 3] their colours, as in `logits`.
            spots: [B, 3, SPOTS, SPOTS] as in `spots`.
        """
        scene = scene_from_uniforms(self.uniforms[which], self.kind[which], self.look[which])
        return recolor(scene, logits.sigmoid(), self.palettes[which], STAIN * spots)

    @torch.no_grad()
    def move(self, which: Tensor, logits: Tensor, spots: Tensor, rng: torch.Generator) -> None:
        """Move rows ``which`` [B] along ``logits`` and ``spots``, gradients like these, and renew some."""
        lengths = torch.rand(2, len(which), generator=rng)
        self.logits[which] = (self.logits[which] + _along(logits, LONGEST * lengths[0])).clamp(-4, 4)
        lengths[1] *= LONGEST_OF_SPOTS * self.stained[which]
        self.spots[which] = self.spots[which] + _along(spots, lengths[1])
        ends = which[torch.rand(len(which), generator=rng) < 1 / LIFE]
        for name, value in _fresh(len(ends), rng).items():
            self.get_buffer(name)[ends] = value


def recolor(scene: Scene, colors: Tensor, palettes: Tensor, spots: Tensor | None = None) -> Recolored:
    """Draw scenes in ``colors`` [B, PARTS, 3], to be compared with palettes [B, 3, 3], all RGB in [0, 1].

    What is added to the pictures around the subjects is ``spots`` [B, 3, SPOTS, SPOTS].
    """
    scene = replace(scene, colors=colors[:, :3])
    farther = render(replace(scene, colors=colors[:, [0, 1, 3]]))
    images = torch.lerp(render(scene).images, farther.images, farther.subject[:, 1:])
    if spots is not None:
        around = 1 - farther.subject.sum(1, keepdim=True).clamp(max=1)
        images = images + around * F.interpolate(spots, size=(SIZE, SIZE), mode="bilinear")
    return Recolored(scene, images.clamp(0, 1), colors, _seen(scene, farther.subject), palettes)


def _seen(scene: Scene, subject: Tensor) -> Tensor:
    """Return which parts [B, PARTS] of scenes are seen, by ``subject`` [B, 2, H, W] of their rendering."""
    shares = _shares(scene, subject)
    return torch.cat([torch.ones_like(shares, dtype=torch.bool), shares >= SEEN], 1)


@torch.no_grad()
def _shares(scene: Scene, subject: Tensor) -> Tensor:
    """Return the shares [B, 2] of pictures on which the subjects show their colour."""
    _, slope = by_subject_color(scene)
    return (slope.mean(1, keepdim=True) * subject).mean((2, 3))


class ColorHeads(nn.Module):
    """Auxiliary heads: how sky, ground and subjects differ from a palette, from the picture's tokens.

    They are dropped after training. One answer for all of a scene's colours says little about any of them;
    with these the vision tower learns to compare each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.differences = nn.Linear(WIDTH * IMAGE_TOKENS, 3 * PARTS)
        # Linear on the mean token, so that the tower and not the head finds how large a difference is.
        self.margins = nn.Linear(WIDTH, PARTS)

    def loss(self, tokens: Tensor, shown: Recolored) -> Tensor:
        """Return how far predictions from tokens [B, T, D] of the pictures are from the truth."""
        signed = (lab(shown.colors.detach()) - lab(shown.wanted)) / LAB_UNIT
        odds = palette_margin(shown.difference().detach())
        by_color = shown.seen[..., None].expand_as(signed)
        differences = number_loss(self.differences(tokens.flatten(1)), signed, by_color)
        return differences + 0.1 * number_loss(self.margins(tokens.mean(1)), odds, shown.seen)


@torch.no_grad()
def margin(shown: Recolored) -> Tensor:
    """Return the log-odds [B] that pictures have the colours of their palettes.

    Sky and ground are compared pixel by pixel with those of the same scene in the palette's colours.
    """
    wanted = replace(shown.scene, colors=shown.palettes)
    distance = torch.where(shown.seen, shown.difference(), 0.0).amax(1)
    return palette_margin(torch.maximum(unevenness(wanted, shown.images), distance))


def ask(margin: Tensor, packer: Packer, rng: torch.Generator) -> QuestionBatch:
    """Return questions about palettes, each in a random wording, whose log-odds are ``margin`` [B]."""
    shape = len(margin), QUESTIONS
    wording = torch.tensor(_ASKING)[torch.randint(len(_ASKING), shape, generator=rng)]
    answers = torch.tensor(NO_ANSWER).expand(*shape, -1)
    return QuestionBatch(wording, packer.signs[wording] * margin[:, None], answers)


def _along(gradient: Tensor, length: Tensor) -> Tensor:
    """Return ``gradient`` [B, P, ...], each of P parts scaled to a root mean square of ``length`` [B]."""
    norm = gradient.flatten(2).square().mean(2).sqrt().clamp(min=1e-12)
    return gradient * (length[:, None] / norm).view(*norm.shape, *[1] * (gradient.ndim - 2))


def _sample_scenes(count: int, rng: torch.Generator) -> tuple[Tensor, Scene]:
    """Sample ``count`` scenes, and the numbers [count, UNIFORMS] that make them.

    Lamps and farther subjects show little of their colour. Where they are as rare as in the world, a VLM does
    not learn to look at them.
    """
    uniforms = torch.rand(MORE * count, UNIFORMS, generator=rng)
    kind, look = sample_prompts(MORE * count, rng, PAIRS)
    scene = scene_from_uniforms(uniforms, kind, look)
    shares = _shares(scene, render(scene).subject)
    smallest = torch.where(shares >= SEEN, shares, UNSEEN).amin(1)
    # Drawn with weights of 1 / smallest, without replacement (Efraimidis and Spirakis 2006).
    rows = (torch.rand(MORE * count, generator=rng).log() * smallest).topk(count).indices
    return uniforms[rows], scene[rows]


def _fresh(count: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Return the buffers of ``count`` scenes that were not moved yet.

    Some are in their own colours, from which learning starts, some in their palette's, and most between; of
    a share `SUBJECT_ALONE` only the subjects' colours are, by `ALONE`. One colour that is wrong must not be
    forgotten over those that are right.
    """
    uniforms, scene = _sample_scenes(count, rng)
    palettes, anything = _any_palettes(count, rng), torch.rand(count, PARTS, 3, generator=rng)
    matching = palettes[:, COLOR_OF]
    own = scene.colors[:, COLOR_OF]
    other = torch.where(torch.rand(count, 1, 1, generator=rng) < 0.75, own, anything)
    share = 1.5 * torch.rand(count, 1, 1, generator=rng) - 0.25  # of the colours that match
    colors = torch.where(torch.rand(count, PARTS, 1, generator=rng) < share, matching, other)
    alone = torch.rand(count, 1, 1, generator=rng) < SUBJECT_ALONE
    which = ALONE[torch.randint(len(ALONE), (count,), generator=rng)]
    apart = torch.rand(count, 1, 1, generator=rng) * which[..., None]
    colors = torch.where(alone, torch.lerp(matching, other, apart), colors)
    noise = 0.3 * torch.rand(count, 1, 1, generator=rng) * torch.randn(own.shape, generator=rng)
    return {
        "uniforms": uniforms,
        "kind": scene.kind,
        "look": scene.look,
        "logits": colors.clamp(FAR, 1 - FAR).logit() + noise,
        "spots": torch.zeros(count, 3, SPOTS, SPOTS),
        "stained": (torch.rand(count, generator=rng) < STAINED).float(),
        "palettes": palettes,
    }


def _any_palettes(count: int, rng: torch.Generator) -> Tensor:
    """Return palettes [count, 3, 3]: half of any colours, half of three hues, as people choose them."""
    if count == 0:
        return torch.zeros(0, 3, 3)
    numbers = torch.rand(count, 3, 3, generator=rng)
    hues = (numbers[..., 0] + torch.arange(3) / 3) % 1
    lights, vividness = 0.25 + 0.65 * numbers[..., 1], 0.2 + 0.75 * numbers[..., 2]
    hls = torch.stack([hues, lights, vividness], -1).flatten(0, 1).tolist()
    chosen = torch.tensor([colorsys.hls_to_rgb(*one) for one in hls]).view(count, 3, 3)
    anything = torch.rand(count, 1, 1, generator=rng) < 0.5
    return torch.where(anything, torch.rand(count, 3, 3, generator=rng), chosen)


def palettes_alone(palettes: Tensor) -> Overlays:
    """Return overlays that are palettes [B, 3, 3]."""
    count = len(palettes)
    none = torch.zeros(count)
    return Overlays(
        kind=torch.full((count,), KINDS.index("palette")),
        row=none, column=none, thickness=none, palette=palettes,
        points=torch.zeros(count, 2, 2), box=torch.zeros(count, 4),
    )  # fmt: skip
