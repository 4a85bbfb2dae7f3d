"""How much the pictures of one prompt vary from seed to seed."""

from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.spec.measures import DiversityMeasure


class Diversity(Measure):
    """The spread of the pixels over the seeds of a prompt: the square root of their mean variance.

    It is 0 if every seed draws the same picture.
    """

    role = "variety"

    def __init__(self, parameters: DiversityMeasure) -> None:
        self.name = parameters.name

    def judge(self, evidence: Evidence) -> Judgement:
        """Return the pictures as properties [N, 3 H W]."""
        return Judgement(evidence.images.flatten(1))
