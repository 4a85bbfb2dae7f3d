"""How many objects of a kind a picture shows."""

from dualproc_cli.measures.detection import detect
from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.measures.pretrained import Pretrained
from dualproc_cli.measures.refusal import Refusal
from dualproc_cli.spec import ControlSpec
from dualproc_cli.spec.faults import did_you_mean, shown
from dualproc_cli.spec.measures import ObjectsMeasure


class Objects(Measure):
    """The number of boxes that a zero-shot detector finds; a success if it is the wanted one."""

    unit = "found"

    def __init__(self, parameters: ObjectsMeasure) -> None:
        self.name, self.parameters = parameters.name, parameters
        self.needs = Pretrained("detector", parameters.model, parameters.revision)

    def refuses(self, spec: ControlSpec) -> Refusal | None:
        """Refuse questions that the spec does not have."""
        known = [question.name for question in spec.questions]
        for name in self.parameters.questions:
            if name not in known:
                problem = f"no question {shown(name)}{did_you_mean(name, known)}"
                return Refusal(problem, f"some of {', '.join(known)}", "questions")
        return super().refuses(spec)

    def judged_questions(self, spec: ControlSpec) -> tuple[str, ...]:
        """Return the questions that its parameters name."""
        return self.parameters.questions

    def judge(self, evidence: Evidence) -> Judgement:
        """Count what is found in each picture."""
        boxes = detect(self.loaded, evidence.images, self.parameters.label, self.parameters.threshold)
        value = evidence.images.new_tensor([len(found) for found in boxes])
        return Judgement(value, (value == self.parameters.count).float())
