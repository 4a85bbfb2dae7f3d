"""How thick the outlines of a picture are."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.measures.target import TargetMeasure
from dualproc_cli.spec import ControlSpec, LinePrompt
from dualproc_cli.spec.faults import shown
from dualproc_cli.spec.measures import LineWeightMeasure

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 512  # that a picture is enlarged or reduced to before it is measured
WIDEST = 0.09  # of the height: what is wider is an area, not a line
FAINTEST = 0.08  # of the range of brightness, by which a line is darker than what it runs through
LEAST = 0.5  # of the height: total length of the lines of a picture that has any


class LineWeight(TargetMeasure[LinePrompt]):
    """How far the width of the outlines is from the thickness of a line, as fractions of the height.

    Pictures without outlines are unjudged. Every photograph has some: fine dark texture counts too.
    """

    unit = "of the height"
    wanted = LinePrompt

    def __init__(self, parameters: LineWeightMeasure) -> None:
        self.name, self.target, self.tolerance = parameters.name, parameters.target, parameters.tolerance

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse a target that is not a line, or too thick for one."""
        if refusal := super().refuses(spec):
            return refusal
        thickness = self._thickness(spec, spec.generator.width / spec.generator.height)
        if thickness <= WIDEST:
            return None
        problem = f"{shown(self.target)} is {thickness:.3g} of the height thick"
        return Refusal(problem, f"a line of at most {WIDEST}", self.key)

    def judge(self, evidence: Evidence) -> Judgement:
        """Measure the outlines of each picture."""
        import torch

        height, width = evidence.images.shape[-2:]
        wanted = self._thickness(evidence.spec, width / height)
        value = (evidence.shared(line_widths) - wanted).abs()
        return Judgement(value, torch.where(value.isnan(), value, (value <= self.tolerance).float()))

    def _thickness(self, spec: ControlSpec, aspect: float) -> float:
        line = self.prompt_of(spec)
        return line.thickness * (1 if line.orientation == "horizontal" else aspect)


def line_widths(images: "Tensor") -> "Tensor":
    """Return the width [N] of the dark lines in images [N, 3, H, W], as a fraction of their height.

    A line is darker than what is on both of its sides. A morphological closing with a disc as wide as
    `WIDEST` fills lines; the depth is what it adds. Lines are where the depth is above Otsu's threshold and
    more than half of the greatest depth nearby. Their width is twice the distance from the skeleton to what
    is outside. The picture's is the median over the skeletons, each of their pixels weighted by its width:
    half of the area of all lines is in narrower ones. NaN where the skeletons are shorter than `LEAST`.

    Source of the parts: scikit-image and SciPy; Otsu, "A threshold selection method from gray-level
    histograms", IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979.
    """
    return images.new_tensor([_line_width(image.mean(0)) for image in images])


def _line_width(luma: "Tensor") -> float:
    """Return the width of the lines in a picture's luma [H, W]."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt, maximum_filter
    from skimage.filters import threshold_otsu
    from skimage.morphology import closing, disk, skeletonize
    from skimage.transform import resize

    height, width = luma.shape
    gray = resize(
        luma.double().numpy(), (ROWS, round(width * ROWS / height)), order=1, anti_aliasing=height > ROWS
    )
    reach = round(WIDEST * ROWS / 2)
    depth = closing(gray, disk(reach, decomposition="sequence")) - gray
    if depth.max() <= FAINTEST:
        return float("nan")
    deepest = maximum_filter(depth, size=reach)
    lines = (depth > deepest / 2) & (depth > max(FAINTEST, threshold_otsu(depth)))
    skeleton = skeletonize(lines)
    if skeleton.sum() < LEAST * ROWS:
        return float("nan")
    # A skeleton may run beside the middle of a line. From the centre of its middle pixel to that of the next
    # one outside, a line of w pixels measures (w + 1) / 2 if w is odd, w / 2 if it is even.
    widths = np.sort(2 * maximum_filter(distance_transform_edt(lines), 3)[skeleton] - 0.5)
    area = widths.cumsum()
    return float(widths[np.searchsorted(area, area[-1] / 2)]) / ROWS
