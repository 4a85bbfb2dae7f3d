"""Whether an object is inside a box."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.detection import detect
from dualproc_cli.measures.measure import Evidence, Judgement
from dualproc_cli.measures.pretrained import Pretrained
from dualproc_cli.measures.target import TargetMeasure
from dualproc_cli.spec import BoxPrompt
from dualproc_cli.spec.measures import PlacementMeasure

if TYPE_CHECKING:
    from torch import Tensor


class Placement(TargetMeasure[BoxPrompt]):
    """The share of the object that is inside the target: of the most certain box of a zero-shot detector.

    Pictures in which it finds none are unjudged.
    """

    unit = "share inside"
    wanted = BoxPrompt

    def __init__(self, parameters: PlacementMeasure) -> None:
        self.name, self.target, self.parameters = parameters.name, parameters.target, parameters
        self.needs = Pretrained("detector", parameters.model, parameters.revision)

    def judge(self, evidence: Evidence) -> Judgement:
        """Compare the object's box with the target in each picture."""
        import torch

        box = self.prompt_of(evidence.spec)
        target = torch.tensor([box.left, box.top, box.right, box.bottom])
        boxes = detect(self.loaded, evidence.images, self.parameters.label, self.parameters.threshold)
        nothing = torch.full((4,), torch.nan)
        value = share_inside(torch.stack([found[0] if len(found) else nothing for found in boxes]), target)
        success = (value >= self.parameters.at_least).float()
        return Judgement(value, torch.where(value.isnan(), value, success))


def share_inside(boxes: "Tensor", target: "Tensor") -> "Tensor":
    """Return the share [N] of the area of boxes [N, 4] (left, top, right, bottom) inside a target [4]."""
    import torch

    near, far = torch.maximum(boxes[:, :2], target[:2]), torch.minimum(boxes[:, 2:], target[2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (far - near).clamp(min=0).prod(1) / area
