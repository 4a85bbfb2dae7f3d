"""How much people would like a picture of its prompt, as a model of their choices predicts."""

from dualproc_cli.measures.image_text import compare
from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.measures.pretrained import Pretrained
from dualproc_cli.spec.measures import PreferenceMeasure


class Preference(Measure):
    """The logit of a model of CLIP's shape that was trained on people's choices: its scale times the cosine.

    Of two pictures of one prompt with the logits a and b, the first is preferred with the probability
    1 / (1 + exp(b - a)) (Kirstain et al., "Pick-a-Pic", NeurIPS 2023). With ``worse_by``, a picture succeeds
    if the base generator's of the same seed is at most that far ahead. Pictures without a prompt are
    unjudged.
    """

    unit = "logit"

    def __init__(self, parameters: PreferenceMeasure) -> None:
        self.name, self.worse_by = parameters.name, parameters.worse_by
        self.needs = Pretrained(
            "image-text", parameters.model, parameters.revision, processor=parameters.processor
        )

    def judge(self, evidence: Evidence) -> Judgement:
        """Score each picture with its prompt."""
        unjudged = evidence.unjudged
        if evidence.prompts is None:
            return Judgement(unjudged, None if self.worse_by is None else unjudged)
        _, value = compare(self.loaded, evidence.images, evidence.prompts)
        if self.worse_by is None:
            return Judgement(value)
        if evidence.base is None:
            return Judgement(value, unjudged)
        _, base = compare(self.loaded, evidence.base, evidence.prompts)
        return Judgement(value, (base - value <= self.worse_by).float())
