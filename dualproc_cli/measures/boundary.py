"""Where the upper or lower boundary of something runs, such as the skyline."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement
from dualproc_cli.measures.pretrained import Pretrained, batches
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.measures.target import TargetMeasure
from dualproc_cli.spec import ControlSpec, LinePrompt
from dualproc_cli.spec.faults import shown
from dualproc_cli.spec.measures import BoundaryMeasure

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH = 0.25  # share of the columns that have to show the boundary


class Boundary(TargetMeasure[LinePrompt]):
    """How far the boundary of a label is from a horizontal line, as a fraction of the height.

    A model of semantic segmentation says which pixels have the label. The lower boundary is the end of its
    lowest pixel in each column, the median over the columns; what hides a part of it, such as a house before
    the sky, moves it little. A column without the label has no boundary, nor has one where the label reaches
    the edge of the picture. Pictures with fewer than a quarter of the columns left are unjudged.
    """

    unit = "of the height"
    wanted = LinePrompt

    def __init__(self, parameters: BoundaryMeasure) -> None:
        self.name, self.target, self.parameters = parameters.name, parameters.target, parameters
        self.needs = self._model = Pretrained("segmenter", parameters.model, parameters.revision)

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse a target that is not a horizontal line, and a label that the model does not know."""
        if refusal := self._refuses_target(spec):
            return refusal
        if self.prompt_of(spec).orientation != "horizontal":
            return Refusal(f"{shown(self.target)} is a vertical line", "a horizontal one", self.key)
        return super().refuses(spec) or self._model.refuses_label(self.parameters.label)

    def judge(self, evidence: Evidence) -> Judgement:
        """Compare the boundary with the line in each picture."""
        import torch

        loaded, height, width = self.loaded, *evidence.images.shape[-2:]
        labels = {text: int(index) for index, text in loaded.model.config.id2label.items()}
        where = []
        for pictures in batches(evidence.images):
            maps = loaded.processor.post_process_semantic_segmentation(
                loaded(images=pictures), target_sizes=[(height, width)] * len(pictures)
            )
            where += [found.cpu() == labels[self.parameters.label] for found in maps]
        row = boundary(torch.stack(where), self.parameters.edge)
        value = (row - self.prompt_of(evidence.spec).position).abs()
        success = (value <= self.parameters.tolerance).float()
        return Judgement(value, torch.where(value.isnan(), value, success))


def boundary(mask: "Tensor", edge: str) -> "Tensor":
    """Return where the upper or lower boundary of masks [N, H, W] runs: [N] from the top, NaN without one."""
    import torch

    height = mask.shape[1]
    upright = mask if edge == "lower" else mask.flip(1)
    rows = torch.arange(1, height + 1)[:, None]
    end = (upright * rows).amax(1)  # below the lowest pixel; 0 in columns without any
    shown = (end > 0) & (end < height)
    found = torch.where(shown, end / height, torch.nan).nanmedian(1).values
    found = torch.where(shown.float().mean(1) >= ENOUGH, found, torch.nan)
    return found if edge == "lower" else 1 - found
