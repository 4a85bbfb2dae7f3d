"""Losses of networks that predict a scene, and the auxiliary heads that the VLM is trained with."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.miniature.world.language import YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays
from dualproc_cli.miniature.world.questions import Margin
from dualproc_cli.miniature.world.reader import SCENE_NUMBERS, scene_numbers
from dualproc_cli.miniature.world.render import Rendering
from dualproc_cli.miniature.world.scene import NOBODY, SUBJECTS, Scene

CELL = 4  # pixels: side of a cell, the resolution at which maps are predicted
# How many numbers describe a visual prompt, by name.
OVERLAY_NUMBERS = {"row": 1, "column": 1, "thickness": 1, "palette": 9, "points": 4, "box": 4}


def scene_loss(predicted: dict[str, Tensor], scene: Scene) -> Tensor:
    """Return how far predicted SCENE_NUMBERS, each [B, size], are from those of B scenes."""
    pair = (scene.kind[:, 1] != NOBODY)[:, None]
    exists = torch.cat([torch.ones_like(pair), pair], 1)
    target = scene_numbers(scene)
    total = sum(
        (number_loss(predicted[name], target[name]) for name in ("horizon", "outline", "colors")),
        torch.zeros(()),
    )
    total = total + number_loss(predicted["place"], target["place"], exists[..., None].expand(-1, -1, 3))
    on = F.binary_cross_entropy_with_logits(predicted["on"], scene.on.float(), exists.float())
    total = total + 0.5 * on + 0.3 * F.cross_entropy(predicted["near"], scene.kind[:, 0])
    far = torch.where(pair[:, 0], scene.kind[:, 1], len(SUBJECTS))
    far_loss = 0.3 * F.cross_entropy(predicted["far"], far)
    return total + far_loss + 0.2 * F.cross_entropy(predicted["look"], scene.look)


def number_loss(predicted: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean smooth L1 distance of numbers [B, size] to a target of the same size.

    Distances outside the mask ``where``, of B or B * size elements, count as zero.
    """
    error = F.smooth_l1_loss(predicted, target.reshape(predicted.shape), beta=0.1, reduction="none")
    if where is None:
        return error.mean()
    return (error * where.reshape(len(predicted), -1).expand_as(error).float()).mean()


class SceneHeads(nn.Module):
    """Auxiliary heads of the VLM: maps from its patches, numbers and relations from its picture tokens.

    They are dropped after training. They only make a small vision tower learn the scene's numbers early.
    """

    def __init__(self, patch_width: int, patch: int, token_width: int, tokens: int) -> None:
        """Build the heads.

        Args:
            patch_width: features of a patch.
            patch: side of a patch in pixels.
            token_width: features of a picture token.
            tokens: how many picture tokens there are.
        """
        super().__init__()
        self.cells = patch // CELL
        self.maps = nn.Linear(patch_width, 4 * self.cells**2)
        self.sizes = {**SCENE_NUMBERS, **OVERLAY_NUMBERS}
        self.numbers = nn.Sequential(
            nn.Linear(token_width * tokens, 256), nn.GELU(), nn.Linear(256, sum(self.sizes.values()))
        )
        # Linear on the mean token, so that the tower itself learns to compare; the language model then only
        # has to read the answer.
        self.relations = nn.Linear(token_width, len(YES_NO_KINDS))

    def loss(
        self,
        patches: Tensor,
        tokens: Tensor,
        scene: Scene,
        rendering: Rendering,
        overlays: Overlays,
    ) -> Tensor:
        """Return how far predictions from patches [B, N, D] and tokens [B, T, D'] are from the truth."""
        numbers = self.numbers(tokens.flatten(1)).split(list(self.sizes.values()), 1)
        predicted = dict(zip(self.sizes, numbers, strict=True))
        line = overlays.is_horizontal | overlays.is_vertical
        total = self._maps_loss(patches, rendering) + scene_loss(predicted, scene)
        total = total + number_loss(predicted["row"], overlays.row / 8 - 4, overlays.is_horizontal)
        total = total + number_loss(predicted["column"], overlays.column / 8 - 4, overlays.is_vertical)
        total = total + number_loss(predicted["thickness"], overlays.thickness - 2, line)
        total = total + number_loss(predicted["palette"], 4 * overlays.palette - 2, overlays.is_palette)
        total = total + number_loss(predicted["points"], overlays.points / 16 - 2, overlays.is_points)
        return total + number_loss(predicted["box"], overlays.box / 16 - 2, overlays.is_box)

    def relations_loss(self, tokens: Tensor, margins: dict[str, Margin]) -> Tensor:
        """Return the cross-entropy of all yes-no kinds, predicted from the mean of tokens [B, T, D']."""
        target = torch.sigmoid(torch.stack([margins[kind].yes for kind in YES_NO_KINDS], 1))
        weights = torch.stack([margins[kind].weight for kind in YES_NO_KINDS], 1)
        error = F.binary_cross_entropy_with_logits(
            self.relations(tokens.mean(1)), target, weights, reduction="sum"
        )
        return error / weights.sum()

    def _maps_loss(self, patches: Tensor, rendering: Rendering) -> Tensor:
        """Return how far the predicted maps of ground, subjects and outlines are from the true ones."""
        maps = torch.cat([rendering.ground[:, None], rendering.subject, rendering.ink[:, None]], 1)
        cells = F.avg_pool2d(maps, CELL)
        target = F.unfold(cells, self.cells, stride=self.cells).transpose(1, 2)  # [B, patches, 4 * cells^2]
        return 2 * F.smooth_l1_loss(self.maps(patches), target, beta=0.1)
