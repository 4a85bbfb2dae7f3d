"""Blends: pictures between two scenes, which a VLM must take for neither.

A VLM that has only seen whole scenes is fooled by a subject that fades, smears or stands in two places. Here
it sees such pictures, and a statement about one is as true as it is of everything that shows.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dualproc_cli.miniature.world.batched import Batched
from dualproc_cli.miniature.world.overlays import Overlays
from dualproc_cli.miniature.world.questions import FARTHEST, Margin, margins
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import NOBODY, UNIFORMS, Scene, sample_prompts, scene_from_uniforms

# What the second scene has of its own: numbers of `scene_from_uniforms`, or nobody in place of the subject.
CHANGES: dict[str, tuple[int, ...]] = {
    "subject gone": (),
    "place": (5, 6, 7),
    "horizon": (0,),
    "outline": (4,),
    "attribute": (17, 18),
    "everything": tuple(range(UNIFORMS)),
}
SHARES = torch.tensor([0.3, 0.3, 0.2, 0.05, 0.05, 0.1])
PATCHY = 0.35  # how much the share varies over the picture, in half of them
SMEARED = 0.8  # how much less of a wholly smeared subject is to be seen
FORGIVENESS = 6.0  # log-odds that a scene's claims weaken as its share falls from one half to 1/e of it


@dataclass
class Blends(Batched):
    """B pictures, each of one scene or between two."""

    images: Tensor  # [B, 3, H, W] in [0, 1]
    first: Scene
    first_rendering: Rendering
    second: Scene  # where the share is 1: the first
    second_rendering: Rendering
    share: Tensor  # [B] of the first in the picture
    most: Tensor  # [B] largest log-odds of any claim about the picture: small where it is corrupted

    @property
    def single(self) -> Tensor:
        """Which pictures [B] show one sound scene."""
        return (self.share == 1) & (self.most == FARTHEST)

    @staticmethod
    def of_one(images: Tensor, scene: Scene, rendering: Rendering) -> "Blends":
        """Pictures of one scene each."""
        ones = torch.ones(len(images))
        return Blends(images, scene, rendering, scene, rendering, ones, FARTHEST * ones)

    def margins(self, overlays: Overlays) -> dict[str, Margin]:
        """What is true of each yes-no kind: a claim about a picture between two scenes is about both."""
        first = margins(self.first, self.first_rendering, overlays)
        second = margins(self.second, self.second_rendering, overlays)
        return {
            kind: Margin(
                self._both(first[kind].yes, second[kind].yes),
                self._both(first[kind].no, second[kind].no),
                torch.maximum(first[kind].weight, second[kind].weight),
            )
            for kind in first
        }

    def _both(self, first: Tensor, second: Tensor) -> Tensor:
        """It holds as far as it does of either, but the fainter a scene, the less is asked of it."""
        lenient = [
            -FORGIVENESS * torch.log((2 * part).clamp(1e-4, 1)) for part in (self.share, 1 - self.share)
        ]
        either = torch.minimum(first + lenient[0], second + lenient[1])
        return torch.minimum(either, self.most).clamp(-FARTHEST, FARTHEST)


def blended_pictures(count: int, rng: torch.Generator) -> Blends:
    """Two scenes of one prompt in each picture; either may be the stronger."""
    kind, look = sample_prompts(count, rng)
    u = torch.rand(count, UNIFORMS, generator=rng)
    change = torch.multinomial(SHARES, count, replacement=True, generator=rng)
    own = torch.zeros(len(CHANGES), UNIFORMS, dtype=torch.bool)
    for row, numbers in enumerate(CHANGES.values()):
        own[row, list(numbers)] = True
    fresh = torch.rand(count, UNIFORMS, generator=rng)
    scene, other = (
        scene_from_uniforms(numbers, kind, look) for numbers in (u, torch.where(own[change], fresh, u))
    )
    gone = change == list(CHANGES).index("subject gone")
    nobody = torch.where(gone, NOBODY, kind[:, 0])
    other = replace(other, kind=torch.stack([nobody, kind[:, 1]], 1))
    rendering, other_rendering = render(scene), render(other)

    share = torch.rand(count, generator=rng)
    patches = F.interpolate(torch.randn(count, 1, 4, 4, generator=rng), size=64, mode="bicubic")
    patchy = PATCHY * (torch.rand(count, 1, 1, 1, generator=rng) < 0.5) * patches
    smear = torch.where(gone, torch.rand(count, generator=rng), 0.0)
    difference = rendering.images - other_rendering.images
    difference = torch.lerp(difference, _smeared(difference), smear[:, None, None, None])
    where = (share[:, None, None, None] + patchy).clamp(0, 1)
    images = (other_rendering.images + where * difference).clamp(0, 1)
    share = share * (1 - SMEARED * smear)

    # The visual prompts are laid out for the first: let it be either.
    swap = torch.rand(count, generator=rng) < 0.5
    order = torch.where(swap, torch.arange(count) + count, torch.arange(count))
    back = torch.where(swap, torch.arange(count), torch.arange(count) + count)
    scenes, renderings = (
        Scene.concatenate([scene, other]),
        Rendering.concatenate([rendering, other_rendering]),
    )
    return Blends(
        images,
        scenes[order],
        renderings[order],
        scenes[back],
        renderings[back],
        share=torch.where(swap, 1 - share, share),
        most=torch.full((count,), FARTHEST),
    )


def _smeared(images: Tensor) -> Tensor:
    """A blur of about 3 pixels."""
    for _ in range(3):
        images = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    return images
