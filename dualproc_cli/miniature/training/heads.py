"""Losses of networks that predict a scene, and the heads that the VLM's tower carries while training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.miniature.world.language import YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import Overlays
from dualproc_cli.miniature.world.questions import Margin
from dualproc_cli.miniature.world.reader import SCENE_NUMBERS, scene_numbers
from dualproc_cli.miniature.world.render import Rendering
from dualproc_cli.miniature.world.scene import NOBODY, SUBJECTS, Scene

CELL = 4  # pixels: the maps are predicted at this resolution
OVERLAY_NUMBERS = {"row": 1, "column": 1, "thickness": 1, "palette": 9, "points": 4, "box": 4}


def scene_loss(found: dict[str, Tensor], scene: Scene) -> Tensor:
    """How far predicted SCENE_NUMBERS are from a scene's."""
    pair = (scene.kind[:, 1] != NOBODY)[:, None]
    exists = torch.cat([torch.ones_like(pair), pair], 1)
    wanted = scene_numbers(scene)
    total = sum(
        (close(found[name], wanted[name]) for name in ("horizon", "outline", "colors")), torch.zeros(())
    )
    total = total + close(found["place"], wanted["place"], exists[..., None].expand(-1, -1, 3))
    on = F.binary_cross_entropy_with_logits(found["on"], scene.on.float(), exists.float())
    total = total + 0.5 * on + 0.3 * F.cross_entropy(found["near"], scene.kind[:, 0])
    far = torch.where(pair[:, 0], scene.kind[:, 1], len(SUBJECTS))
    return total + 0.3 * F.cross_entropy(found["far"], far) + 0.2 * F.cross_entropy(found["look"], scene.look)


def close(found: Tensor, wanted: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean smooth L1 distance, zero outside ``where``."""
    error = F.smooth_l1_loss(found, wanted.reshape(found.shape), beta=0.1, reduction="none")
    if where is None:
        return error.mean()
    return (error * where.reshape(len(found), -1).expand_as(error).float()).mean()


class SceneHeads(nn.Module):
    """Predicts maps from the tower's patches and all parameters from the tokens that the language model sees.

    Dropped after training: they only make a small tower see the scene's numbers early.
    """

    def __init__(self, patch_width: int, patch: int, token_width: int, tokens: int) -> None:
        super().__init__()
        self.cells = patch // CELL
        self.maps = nn.Linear(patch_width, 4 * self.cells**2)
        self.sizes = {**SCENE_NUMBERS, **OVERLAY_NUMBERS}
        self.numbers = nn.Sequential(
            nn.Linear(token_width * tokens, 256), nn.GELU(), nn.Linear(256, sum(self.sizes.values()))
        )
        # Linear on the mean token: the tower itself has to compare, the language model looks the answer up.
        self.relations = nn.Linear(token_width, len(YES_NO_KINDS))

    def loss(
        self,
        patches: Tensor,
        tokens: Tensor,
        scene: Scene,
        rendering: Rendering,
        overlays: Overlays,
    ) -> Tensor:
        """How far the scenes that were seen are from the true ones; patches [B, N, D], tokens [B, T, D']."""
        numbers = self.numbers(tokens.flatten(1)).split(list(self.sizes.values()), 1)
        found = dict(zip(self.sizes, numbers, strict=True))
        line = overlays.is_horizontal | overlays.is_vertical
        total = self._maps_loss(patches, rendering) + scene_loss(found, scene)
        total = total + close(found["row"], overlays.row / 8 - 4, overlays.is_horizontal)
        total = total + close(found["column"], overlays.column / 8 - 4, overlays.is_vertical)
        total = total + close(found["thickness"], overlays.thickness - 2, line)
        total = total + close(found["palette"], 4 * overlays.palette - 2, overlays.is_palette)
        total = total + close(found["points"], overlays.points / 16 - 2, overlays.is_points)
        return total + close(found["box"], overlays.box / 16 - 2, overlays.is_box)

    def relations_loss(self, tokens: Tensor, margins: dict[str, Margin]) -> Tensor:
        """Cross-entropy of what the mean token [B, D'] of tokens [B, T, D'] says to every yes-no kind."""
        wanted = torch.sigmoid(torch.stack([margins[kind].yes for kind in YES_NO_KINDS], 1))
        weights = torch.stack([margins[kind].weight for kind in YES_NO_KINDS], 1)
        error = F.binary_cross_entropy_with_logits(
            self.relations(tokens.mean(1)), wanted, weights, reduction="sum"
        )
        return error / weights.sum()

    def _maps_loss(self, patches: Tensor, rendering: Rendering) -> Tensor:
        maps = torch.cat([rendering.ground[:, None], rendering.subject, rendering.ink[:, None]], 1)
        cells = F.avg_pool2d(maps, CELL)
        wanted = F.unfold(cells, self.cells, stride=self.cells).transpose(1, 2)  # [B, patches, 4 * cells^2]
        return 2 * F.smooth_l1_loss(self.maps(patches), wanted, beta=0.1)
