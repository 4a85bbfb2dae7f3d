"""How right the measures of depth order, objects and placement are about the miniature's world.

The renderer gives the true answers, and `train_judges.py` the models that judge.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_judges import subject_boxes

from dualproc_cli.measures import Evidence, Judgement, Measure, judge_in_turn
from dualproc_cli.measures.depth_order import DepthOrder
from dualproc_cli.measures.objects import Objects
from dualproc_cli.measures.placement import Placement, share_inside
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import SIZE, SUBJECTS, Scene, sample_scenes
from dualproc_cli.spec import BoxPrompt, ControlSpec, PointsPrompt, PromptsSpec, Question
from dualproc_cli.spec.measures import DepthOrderMeasure, ObjectsMeasure, PlacementMeasure
from dualproc_cli.spec.visual_prompts import PointSpec

SCENES, SEED = 256, 2026  # other scenes than those of the training
POINTS = {"A": (0.68, 0.6), "B": (0.25, 0.6)}
BOX = {"left": 0.5, "top": 0.0, "right": 1.0, "bottom": 1.0}
Line = tuple[str, str, Tensor, str]  # measure, pictures, errors [N], unit
MARGIN = 2  # rows: points that are closer than this in depth are left out


def judged_world(judges: Path) -> dict[str, dict[str, Any]]:
    """Return lines of the table for what the judges in the folder say of random scenes."""
    scenes = sample_scenes(SCENES, torch.Generator().manual_seed(SEED), pairs=0.5)
    found = [_depth(scenes, judges / "depth")] if (judges / "depth").exists() else []
    found += _houses(scenes, judges / "detector") if (judges / "detector").exists() else []
    return {
        f"{measure}: {shown}": {
            "measure": measure,
            "pictures": shown,
            "count": len(errors),
            "mean": float(errors.mean()),
            "largest": float(errors.max()),
            "unit": unit,
        }
        for measure, shown, errors, unit in found
    }


def _depth(scenes: Scene, model: Path) -> Line:
    """Judge the order of two points that differ in depth."""
    drawn = render(scenes)
    parameters = DepthOrderMeasure(name="o", model=str(model), points="points", margin=0.0)
    found = _judge(drawn.images, DepthOrder(parameters))
    near, far = (drawn.closeness[:, int(y * SIZE), int(x * SIZE)] for x, y in POINTS.values())
    apart = (near - far).abs() >= MARGIN
    wrong = (found[0].success != (near > far).float())[apart].float()
    return "depth-order", f"two points of a scene, {MARGIN} rows or more apart", wrong, "wrong order"


def _houses(scenes: Scene, model: Path) -> list[Line]:
    """Judge how many houses there are, and how much of a house is in the right half."""
    images = render(scenes).images
    houses = Objects(ObjectsMeasure(name="n", model=str(model), label="a house"))
    half = Placement(PlacementMeasure(name="p", model=str(model), label="a house", target="box"))
    counted, inside = _judge(images, houses, half)
    boxes, kinds, _ = subject_boxes(scenes)
    house = kinds == SUBJECTS.index("house")
    missed = (counted.value != house.sum(1)).float()
    shares = share_inside(_corners(boxes[house]), torch.tensor(list(BOX.values())))
    off = (inside.value[house.any(1)] - shares).abs()
    return [
        ("objects", "scenes with a house, or none", missed, "another number"),
        ("placement", "scenes with a house", off[~off.isnan()], _judged(inside, house)),
    ]


def _judge(images: Tensor, *measures: Measure) -> list[Judgement]:
    points = tuple(PointSpec(label=label, x=x, y=y) for label, (x, y) in POINTS.items())
    spec = ControlSpec(
        name="c",
        prompts=PromptsSpec(train=("a house",)),
        visual_prompts={"points": PointsPrompt(points=points), "box": BoxPrompt(**BOX)},
        questions=(Question(name="q", question="Is it?", answer="Yes"),),
    )
    (found,) = judge_in_turn(measures, lambda: [Evidence(images, spec)], torch.device("cpu"))
    return [found[measure] for measure in measures]


def _judged(found: Judgement, house: Tensor) -> str:
    unjudged = found.value[house.any(1)].isnan().float().mean()
    return f"the house; {unjudged:.0%} unjudged"


def _corners(boxes: Tensor) -> Tensor:
    """Return left, top, right and bottom of boxes [N, 4] (middle, width, height)."""
    middle, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([middle - size / 2, middle + size / 2], 1)
