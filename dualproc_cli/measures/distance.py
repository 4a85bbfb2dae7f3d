"""How far a picture is from the base generator's of the same prompt and seed."""

from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.spec.measures import DistanceMeasure


class Distance(Measure):
    """The mean absolute difference of the pixels, mean |x - x_base|, in [0, 1].

    It is low if a control changes little of the picture, and high if all pictures become alike. With
    ``at_most``, a picture succeeds if its distance is at most that.
    """

    unit = "mean |x - base|"

    def __init__(self, parameters: DistanceMeasure) -> None:
        self.name, self.at_most = parameters.name, parameters.at_most

    def judge(self, evidence: Evidence) -> Judgement:
        """Measure the distance of each picture to its base picture."""
        if evidence.base is None:
            value = evidence.unjudged
            return Judgement(value, None if self.at_most is None else value)
        value = (evidence.images - evidence.base).abs().mean((1, 2, 3))
        return Judgement(value, None if self.at_most is None else (value <= self.at_most).float())
