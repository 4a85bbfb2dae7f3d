"""Blends: pictures between two scenes. Only what is true of both scenes is true of a blend.

A VLM that has only seen pictures of one scene is misled by a subject that fades, smears or stands in two
places. Blends teach it to answer No about those.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.miniature.training.corruptions import corrupt, root_mean_square
from dualproc_cli.miniature.training.miscolor import miscolor
from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.overlays import Overlays
from dualproc_cli.miniature.world.questions import MAX_LOG_ODDS, Margin, clean, margins
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import (
    NOBODY,
    UNIFORMS,
    Scene,
    sample_prompts,
    scene_from_uniforms,
    with_random_colors,
)

# How the second scene differs from the first: which numbers of `scene_from_uniforms` are its own. Where the
# subject is gone, its kind is NOBODY.
CHANGES: dict[str, tuple[int, ...]] = {
    "subject gone": (),
    "place": (5, 6, 7),
    "horizon": (0,),
    "outline": (4,),
    "attribute": (17, 18),
    "everything": tuple(range(UNIFORMS)),
}
CHANGE_SHARES = torch.tensor([0.3, 0.3, 0.2, 0.05, 0.05, 0.1])
PATCHINESS = 0.35  # in half of the pictures, how much the first scene's share varies from place to place
SMEARING = 0.8  # share of a subject that counts as invisible when all of it is smeared
# Root mean square of a picture's artefacts. Up to DOUBTFUL, questions are answered as if there were none;
# from CORRUPTED on, the answer to every yes-no question is No, except to whether there are any.
DOUBTFUL, CORRUPTED = 0.06, 0.11
RANDOM_COLORS = 0.5  # share of the scenes whose colours are no family's
LENIENCY = 6.0  # log-odds that are added to a scene's as its share falls from 1/2 to 1/(2e)


@dataclass
class Blends(Batched):
    """B pictures, each of one scene or between two.

    Attributes:
        images: [B, 3, H, W] in [0, 1].
        first: the scene over which visual prompts are laid out.
        first_rendering: that scene as it is drawn.
        second: the other scene; the first again where a picture shows one scene.
        second_rendering: the other scene as it is drawn.
        first_share: [B] how much of the picture is the first scene's, in [0, 1].
        max_log_odds: [B] upper limit of the log-odds of any answer; MAX_LOG_ODDS for a sound picture, less
            for a corrupted one, negative if the answer to every yes-no question about it is No.
        artefacts: [B] root mean square of what spoils the picture, by which it is clean or not.
    """

    images: Tensor
    first: Scene
    first_rendering: Rendering
    second: Scene
    second_rendering: Rendering
    first_share: Tensor
    max_log_odds: Tensor
    artefacts: Tensor

    @property
    def shows_one_scene(self) -> Tensor:
        """Whether each picture shows one scene, and is sound. [B] bool."""
        return (self.first_share == 1) & (self.max_log_odds == MAX_LOG_ODDS)

    @property
    def is_unclear(self) -> Tensor:
        """Whether each picture is too corrupted to tell what it shows. [B] bool."""
        return self.max_log_odds < 0

    @staticmethod
    def from_one_scene(images: Tensor, scene: Scene, rendering: Rendering, artefacts: Tensor) -> "Blends":
        """Return sound pictures [B, 3, H, W] of one scene each, with slight ``artefacts`` [B]."""
        ones = torch.ones(len(images))
        return Blends(images, scene, rendering, scene, rendering, ones, MAX_LOG_ODDS * ones, artefacts)

    def disturbed(self, artefacts: Tensor) -> "Blends":
        """Return the pictures with further artefacts [B], which matter only to whether they are clean."""
        return replace(self, artefacts=torch.hypot(self.artefacts, artefacts))

    def corrupted(self, rng: torch.Generator) -> "Blends":
        """Return the pictures corrupted, the less sure to show anything the more they are."""
        images, change = corrupt(self.images, rng)
        limit = torch.minimum(self.max_log_odds, log_odds_limit(change))
        return replace(self.disturbed(change), images=images, max_log_odds=limit)

    def miscolored(self, rng: torch.Generator) -> "Blends":
        """Return the pictures, each of one scene, with a part in a wrong colour."""
        images, change = miscolor(self.images, self.first, self.first_rendering, rng)
        return replace(self.disturbed(change), images=images)

    def margins(self, overlays: Overlays) -> dict[str, Margin]:
        """Return, for each yes-no kind, what is true of the pictures with their visual prompts."""
        first = margins(self.first, self.first_rendering, overlays)
        second = margins(self.second, self.second_rendering, overlays)
        both = {
            kind: Margin(
                self._of_both(first[kind].yes, second[kind].yes),
                self._of_both(first[kind].no, second[kind].no),
                torch.maximum(first[kind].weight, second[kind].weight),
            )
            for kind in first
        }
        return both | {"clean": clean(self.artefacts)}

    def _of_both(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the log-odds [B] that something is true of both scenes, given those of each.

        The smaller one decides. A scene of less than half the picture is treated leniently: its log-odds are
        raised by ``-LENIENCY * log(2 * share)``.
        """
        lenience = [
            -LENIENCY * torch.log((2 * share).clamp(1e-4, 1))
            for share in (self.first_share, 1 - self.first_share)
        ]
        smaller = torch.minimum(first + lenience[0], second + lenience[1])
        return torch.minimum(smaller, self.max_log_odds).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)


def log_odds_limit(artefacts: Tensor) -> Tensor:
    """Return the upper limit [B] of the log-odds of answers about pictures with such artefacts."""
    corruption = ((artefacts - DOUBTFUL) / (CORRUPTED - DOUBTFUL)).clamp(0, 1)
    return torch.where(corruption > 0, 5 - 8 * corruption, MAX_LOG_ODDS)


def sample_blends(count: int, rng: torch.Generator) -> Blends:
    """Sample pictures between two scenes of one prompt, either of which may be the stronger."""
    kind, look = sample_prompts(count, rng)
    u = torch.rand(count, UNIFORMS, generator=rng)
    change = torch.multinomial(CHANGE_SHARES, count, replacement=True, generator=rng)
    own = torch.zeros(len(CHANGES), UNIFORMS, dtype=torch.bool)
    for row, numbers in enumerate(CHANGES.values()):
        own[row, list(numbers)] = True
    fresh = torch.rand(count, UNIFORMS, generator=rng)
    scene, other = (
        scene_from_uniforms(numbers, kind, look) for numbers in (u, torch.where(own[change], fresh, u))
    )
    gone = change == list(CHANGES).index("subject gone")
    scene = with_random_colors(scene, RANDOM_COLORS, rng)
    changes_all = change == list(CHANGES).index("everything")
    other = replace(other, colors=torch.where(changes_all[:, None, None], other.colors, scene.colors))
    nearer = torch.where(gone, NOBODY, kind[:, 0])
    other = replace(other, kind=torch.stack([nearer, kind[:, 1]], 1))
    rendering, other_rendering = render(scene), render(other)

    share = torch.rand(count, generator=rng)
    patches = F.interpolate(torch.randn(count, 1, 4, 4, generator=rng), size=64, mode="bicubic")
    patchy = PATCHINESS * (torch.rand(count, 1, 1, 1, generator=rng) < 0.5) * patches
    smear = torch.where(gone, torch.rand(count, generator=rng), 0.0)
    difference = rendering.images - other_rendering.images
    difference = torch.lerp(difference, _smeared(difference), smear[:, None, None, None])
    share_at = (share[:, None, None, None] + patchy).clamp(0, 1)
    images = (other_rendering.images + share_at * difference).clamp(0, 1)
    share = share * (1 - SMEARING * smear)

    # Visual prompts are laid out over the first scene, so either scene may be the first.
    swap = torch.rand(count, generator=rng) < 0.5
    first = torch.where(swap, torch.arange(count) + count, torch.arange(count))
    second = torch.where(swap, torch.arange(count), torch.arange(count) + count)
    scenes = Scene.concatenate([scene, other])
    renderings = Rendering.concatenate([rendering, other_rendering])
    apart = [root_mean_square(images - one.images) for one in (rendering, other_rendering)]
    return Blends(
        images,
        scenes[first],
        renderings[first],
        scenes[second],
        renderings[second],
        first_share=torch.where(swap, 1 - share, share),
        max_log_odds=torch.full((count,), MAX_LOG_ODDS),
        artefacts=torch.minimum(*apart),
    )


def _smeared(images: Tensor) -> Tensor:
    """Blur by about 3 pixels."""
    for _ in range(3):
        images = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    return images
