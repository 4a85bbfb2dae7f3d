"""How similar a picture is to its prompt, or to a text."""

from dualproc_cli.measures.image_text import compare
from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.measures.pretrained import Pretrained
from dualproc_cli.spec.measures import SimilarityMeasure


class Similarity(Measure):
    """The cosine of the embeddings of picture and text, in [-1, 1].

    With ``at_least``, a picture succeeds if it is at least that. Compared with the prompt, pictures of an
    unknown one are unjudged.
    """

    unit = "cosine"

    def __init__(self, parameters: SimilarityMeasure) -> None:
        self.name, self.to, self.at_least = parameters.name, parameters.to, parameters.at_least
        self.needs = Pretrained("image-text", parameters.model, parameters.revision)

    def judge(self, evidence: Evidence) -> Judgement:
        """Compare each picture with its text."""
        texts = evidence.prompts if self.to == "prompt" else [self.to] * len(evidence.images)
        if texts is None:
            value = evidence.unjudged
            return Judgement(value, None if self.at_least is None else value)
        value, _ = compare(self.loaded, evidence.images, texts)
        return Judgement(value, None if self.at_least is None else (value >= self.at_least).float())
