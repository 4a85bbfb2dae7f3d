"""The independent measures of a spec, ready to judge pictures of the miniature's world."""

from dataclasses import dataclass

from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.miniature import reader_folder
from dualproc_cli.miniature.world.measures import Goal, artefacts, judged, properties, success
from dualproc_cli.miniature.world.reader import load_reader, read
from dualproc_cli.miniature.world.scene import SIZE
from dualproc_cli.spec import ControlSpec


@dataclass
class Verdict:
    """What was measured on N pictures."""

    successes: dict[str, Tensor]  # [N] bool by measure
    artefacts: dict[str, Tensor]  # [N] by name
    properties: dict[str, Tensor]  # [N, any] by name


class Judge:
    """Reads pictures with a network of its own and compares them with what the spec wants.

    Raises:
        UserError: the pictures are not of the miniature's size, or a measure has no question to judge.
    """

    def __init__(self, spec: ControlSpec) -> None:
        if (spec.generator.height, spec.generator.width) != (SIZE, SIZE):
            raise UserError(
                f"evaluate.measures: they read {SIZE}x{SIZE} pictures of the miniature's world, not "
                f"{spec.generator.width}x{spec.generator.height}; leave them out and set evaluate.vlm "
                "to a second VLM"
            )
        self.names = spec.evaluate.measures
        self.goals = [
            Goal(question, spec.visual_prompts.get(question.visual_prompt or ""))
            for question in spec.questions
        ]
        for name in self.names:
            if name != "subject":  # judged by the prompt alone
                judged(name, self.goals)
        self.reader = load_reader(reader_folder())

    def __call__(self, images: Tensor, prompt: str) -> Verdict:
        """Judge images [N, 3, 64, 64] in [0, 1] that were drawn for ``prompt``."""
        images = images.detach().float().cpu()
        reading = read(self.reader, images)
        prompts = [prompt] * len(images)
        successes = {str(name): success(name, reading, self.goals, prompts) for name in self.names}
        return Verdict(successes, artefacts(reading, images), properties(reading))
