"""How far a picture is from the base generator's of the same prompt and seed."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.measures.pretrained import Loaded, Pretrained, batches
from dualproc_cli.spec.measures import DistanceMeasure

if TYPE_CHECKING:
    from torch import Tensor


class Distance(Measure):
    """The mean absolute difference of the pixels, mean |x - x_base|, in [0, 1].

    With a model, it is 1 - cos(f(x), f(x_base)) of the model's features f, in [0, 2], which is less about
    where something is than about what it is.

    It is low if a control changes little of the picture, and high if all pictures become alike. With
    ``at_most``, a picture succeeds if its distance is at most that.
    """

    unit = "mean |x - base|"

    def __init__(self, parameters: DistanceMeasure) -> None:
        self.name, self.at_most = parameters.name, parameters.at_most
        if parameters.model:
            self.unit = "1 - cosine to base"
            self.needs = Pretrained("features", parameters.model, parameters.revision)

    def judge(self, evidence: Evidence) -> Judgement:
        """Measure the distance of each picture to its base picture."""
        if evidence.base is None:
            value = evidence.unjudged
            return Judgement(value, None if self.at_most is None else value)
        if self.needs is None:
            value = (evidence.images - evidence.base).abs().mean((1, 2, 3))
        else:
            own, base = (features(self.loaded, images) for images in (evidence.images, evidence.base))
            value = 1 - (own * base).sum(1)
        return Judgement(value, None if self.at_most is None else (value <= self.at_most).float())


def features(loaded: Loaded, images: "Tensor") -> "Tensor":
    """Return the features of images [N, 3, H, W], of length 1: [N, D].

    They are the model's pooled output, or that of its first token where it pools nothing.
    """
    import torch

    found = []
    for pictures in batches(images):
        output = loaded(images=pictures)
        pooled = getattr(output, "pooler_output", None)
        found.append((output.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1).float().cpu())
    return torch.nn.functional.normalize(torch.cat(found), dim=1)
