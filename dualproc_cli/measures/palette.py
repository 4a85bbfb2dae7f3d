"""How far the colours of a picture are from those of a palette."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement
from dualproc_cli.measures.target import TargetMeasure
from dualproc_cli.spec import PalettePrompt, rgb
from dualproc_cli.spec.measures import PaletteMeasure

if TYPE_CHECKING:
    from torch import Tensor

COLORS = 8  # of a picture's own palette
SIDE = 128  # pixels; of a larger picture, only every second, third ... row and column is used


class Palette(TargetMeasure[PalettePrompt]):
    """The mean CIEDE2000 difference between a picture's colours and the nearest ones of a palette.

    The picture's own palette is found by k-means in CIELAB: colours c_i that cover shares a_i of it. With the
    wanted colours t_j the value is sum_i a_i min_j dE(c_i, t_j). It does not depend on how many of the
    wanted colours are used.
    """

    unit = "CIEDE2000"
    wanted = PalettePrompt

    def __init__(self, parameters: PaletteMeasure) -> None:
        self.name, self.target, self.at_most = parameters.name, parameters.target, parameters.at_most

    def judge(self, evidence: Evidence) -> Judgement:
        """Compare the palette of each picture with the wanted one."""
        import torch

        from dualproc_cli.measures.color import lab, lab_difference

        prompt = self.prompt_of(evidence.spec)
        wanted = lab(torch.tensor([rgb(color) for color in prompt.colors]))
        distances = [
            (shares * lab_difference(colors[:, None], wanted).amin(1)).sum()
            for colors, shares in evidence.shared(palettes)
        ]
        value = torch.stack(distances)
        return Judgement(value, (value <= self.at_most).float())


def palettes(images: "Tensor") -> "list[tuple[Tensor, Tensor]]":
    """Return the palette of each of images [N, 3, H, W]: CIELAB colours [K, 3] and their shares [K]."""
    from dualproc_cli.measures.clusters import k_means
    from dualproc_cli.measures.color import lab

    rows, columns = (max(side // SIDE, 1) for side in images.shape[-2:])
    pixels = lab(images[..., ::rows, ::columns].flatten(2).transpose(1, 2))
    return [k_means(picture, COLORS) for picture in pixels]
