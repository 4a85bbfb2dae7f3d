"""Whether what is at some points comes in the wanted order, from near to far."""

from typing import TYPE_CHECKING, Any

from dualproc_cli.measures.measure import Evidence, Judgement
from dualproc_cli.measures.pretrained import Loaded, Pretrained, batches
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.measures.target import TargetMeasure
from dualproc_cli.spec import ControlSpec, PointsPrompt
from dualproc_cli.spec.faults import did_you_mean, shown
from dualproc_cli.spec.measures import DepthOrderMeasure

if TYPE_CHECKING:
    from torch import Tensor

RADIUS = 0.01  # of the height: depth is read as the median of a square of this half side
EXTREMES = 0.02  # share of the pixels at either end that do not count for the range of depth
# Models whose depth is a distance, which is larger farther away. That of the others is a relative nearness.
METRIC = ("chmv2", "depth_pro", "glpn", "tipsv2_dpt", "zoedepth")


class DepthOrder(TargetMeasure[PointsPrompt]):
    """The smallest lead of a point over the next one, as a share of the range of nearness in the picture.

    With the nearness n_i at point i, the nearest wanted first, the value is min_i (n_i - n_(i+1)) / (the 98th
    - the 2nd percentile of n). It is positive where the order is as wanted. Pictures of one depth are
    unjudged. The nearness is what a model of relative depth predicts, or 1 / distance.
    """

    unit = "of the depth's range"
    wanted = PointsPrompt
    key = "points"

    def __init__(self, parameters: DepthOrderMeasure) -> None:
        self.name, self.target, self.parameters = parameters.name, parameters.points, parameters
        self.needs = Pretrained("depth", parameters.model, parameters.revision)

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse a target that is not two points or more, and an order of other points."""
        if refusal := self._refuses_target(spec):
            return refusal
        labels = [point.label for point in self.prompt_of(spec).points]
        for label in self.parameters.order or ():
            if label not in labels:
                problem = f"no point {shown(label)}{did_you_mean(label, labels)}"
                return Refusal(problem, f"some of {', '.join(labels)}", "order")
        if len(labels) < 2:
            return Refusal(f"{shown(self.target)} is one point", "two points or more", self.key)
        return super().refuses(spec)

    def judge(self, evidence: Evidence) -> Judgement:
        """Compare the depths at the points in each picture."""
        import torch

        points = {point.label: (point.x, point.y) for point in self.prompt_of(evidence.spec).points}
        order = [points[label] for label in self.parameters.order or points]
        value = torch.cat([
            smallest_lead(nearness(self.loaded, pictures, self.parameters.nearer), order)
            for pictures in batches(evidence.images)
        ])  # fmt: skip
        success = (value >= self.parameters.margin).float()
        return Judgement(value, torch.where(value.isnan(), value, success))


def nearness(loaded: Loaded, pictures: list[Any], nearer: str) -> "Tensor":
    """Return how near what is seen at each pixel is: [N, H, W], in any unit.

    Args:
        loaded: a model of depth.
        pictures: N of PIL's of one size.
        nearer: which depth is nearer: ``larger``, ``smaller``, or ``auto``, by what the model is.
    """
    import torch

    sizes = [(picture.height, picture.width) for picture in pictures]
    # ZoeDepth's second argument has another name.
    found = loaded.processor.post_process_depth_estimation(loaded(images=pictures), sizes)
    depth = torch.stack([one["predicted_depth"].float().cpu().reshape(sizes[0]) for one in found])
    if nearer == "auto":
        nearer = "smaller" if _is_distance(loaded.model.config) else "larger"
    return depth if nearer == "larger" else 1 / depth.clamp(min=1e-3)


def smallest_lead(near: "Tensor", order: list[tuple[float, float]]) -> "Tensor":
    """Return the value [N] of `DepthOrder` for nearness [N, H, W].

    Args:
        near: how near what is seen at each pixel is.
        order: x and y of the points as fractions of the picture, the nearest wanted first.
    """
    import torch

    height, width = near.shape[-2:]
    radius = round(RADIUS * height)
    at = []
    for x, y in order:
        row, column = (min(int(share * side), side - 1) for share, side in ((y, height), (x, width)))
        rows = slice(max(row - radius, 0), row + radius + 1)
        columns = slice(max(column - radius, 0), column + radius + 1)
        at.append(near[:, rows, columns].flatten(1).median(1).values)
    pixels = near.flatten(1)[:, :: max(height * width // 100_000, 1)]  # as many as quantile takes at once
    low, high = pixels.quantile(torch.tensor([EXTREMES, 1 - EXTREMES]), dim=1)
    leads = torch.stack(at[:-1], 1) - torch.stack(at[1:], 1)
    return torch.where(high > low, leads.amin(1) / (high - low), torch.nan)


def _is_distance(config: Any) -> bool:
    if kind := getattr(config, "depth_estimation_type", None):
        return kind == "metric"
    # Of the DPT models, those with DINOv2's backbone were trained on distances.
    return config.model_type in METRIC or getattr(config, "add_projection", False)
