"""P(answer) and measures of a spec for pictures that exist already."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss, compile_loss
from dualproc_cli.device import release
from dualproc_cli.measures import Evidence, Judgement, Measure, check_measures, judge_in_turn, measures_of
from dualproc_cli.picture_files import open_picture, to_tensor
from dualproc_cli.spec import ControlSpec, LoadedSpec
from dualproc_cli.stages import stage
from dualproc_cli.visual_prompt import window
from dualproc_cli.vlm import Vlm, load_vlm, reduced, reduction


@dataclass(frozen=True)
class Measured:
    """What one measure found in one picture.

    Attributes:
        value: in ``unit``; None if the picture was not judged.
        success: whether the measure's goal is reached; None if it was not judged or there is no goal.
        unit: of the value.
    """

    value: float | None
    success: bool | None
    unit: str


@dataclass(frozen=True)
class Score:
    """What was found in one picture.

    Attributes:
        probabilities: P(answer) by question.
        measures: by name, what each measure that the spec names found.
    """

    probabilities: dict[str, float]
    measures: dict[str, Measured]


def score_pictures(paths: Sequence[Path], loaded: LoadedSpec, device: torch.device) -> list[Score]:
    """Ask every question of ``loaded`` about every picture, and run its measures.

    Visual prompts are drawn at the picture's own size. A picture several times as large as what the VLM sees
    of it is reduced first, as `reduction` says, but not for the measures. A measure that needs the prompt or
    the base generator's picture, which a file does not hold, leaves the picture unjudged. Measures of variety
    compare many pictures and are left out.

    Returns:
        one score per picture.

    Raises:
        SpecError: a measure cannot judge the pictures of the spec.
        UserError: a picture or the VLM cannot be read.
    """
    check_measures(loaded)
    pictures = [open_picture(path) for path in paths]
    probabilities = _asked(pictures, loaded, device)
    release(device)
    measures = [measure for measure in measures_of(loaded.spec) if measure.role != "variety"]
    if not measures:
        return [Score(answers, {}) for answers in probabilities]
    evidences = [Evidence(to_tensor(picture)[None], loaded.spec) for picture in pictures]
    judged = judge_in_turn(measures, lambda: evidences, device)
    return [
        Score(answers, {measure.name: _measured(measure, by[measure]) for measure in measures})
        for answers, by in zip(probabilities, judged, strict=True)
    ]


def _asked(
    pictures: Sequence[Image.Image], loaded: LoadedSpec, device: torch.device
) -> list[dict[str, float]]:
    """Return P(answer) by question for each picture, by a VLM that is gone when this returns."""
    vlm = load_vlm(loaded.spec.vlm, device)
    factors: dict[tuple[int, int], int] = {}
    compiled: dict[tuple[int, int], CompositeLoss] = {}
    found = []
    for number, picture in enumerate(pictures, 1):
        stage(f"asking about picture {number} of {len(pictures)}")
        if picture.size not in factors:
            factors[picture.size] = _reduction(loaded.spec, vlm, picture.height, picture.width)
        shown = reduced(picture, factors[picture.size])
        if shown.size not in compiled:
            compiled[shown.size] = compile_loss(loaded, vlm, shown.height, shown.width)
        with torch.no_grad():
            report = compiled[shown.size](to_tensor(shown)[None].to(device))
        found.append({name: values.item() for name, values in report.probabilities.items()})
    return found


def _reduction(spec: ControlSpec, vlm: Vlm, height: int, width: int) -> int:
    """Return the factor by which pictures may be reduced for all regions that are asked about."""
    regions = {question.region: f"questions: {question.name}" for question in spec.asked}
    windows = (window(region, height, width, where) for region, where in regions.items())
    return min(reduction(vlm, *part.size) for part in windows)


def _measured(measure: Measure, judgement: Judgement) -> Measured:
    """Return what a measure found in one picture."""
    success = None if judgement.success is None else _known(judgement.success)
    return Measured(_known(judgement.value), None if success is None else bool(success), measure.unit)


def _known(number: Tensor) -> float | None:
    """Return the number in a tensor of one element, None for NaN."""
    return None if math.isnan(number.item()) else number.item()
