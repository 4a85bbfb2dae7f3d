"""How right the measures that need a model are about the miniature's world.

The renderer gives the true answers, and `train_judges.py` the models that judge.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_judges import contents, subject_boxes

from dualproc_cli.measures import Evidence, Judgement, Measure, judge_in_turn
from dualproc_cli.measures.boundary import Boundary
from dualproc_cli.measures.depth_order import DepthOrder
from dualproc_cli.measures.distance import Distance
from dualproc_cli.measures.objects import Objects
from dualproc_cli.measures.placement import Placement, share_inside
from dualproc_cli.measures.preference import Preference
from dualproc_cli.measures.similarity import Similarity
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    SIZE,
    SUBJECTS,
    UNIFORMS,
    Scene,
    sample_scenes,
    scene_from_uniforms,
)
from dualproc_cli.spec import BoxPrompt, ControlSpec, LinePrompt, PointsPrompt, PromptsSpec, Question
from dualproc_cli.spec.measures import (
    BoundaryMeasure,
    DepthOrderMeasure,
    DistanceMeasure,
    ObjectsMeasure,
    PlacementMeasure,
    PreferenceMeasure,
    SimilarityMeasure,
)
from dualproc_cli.spec.visual_prompts import PointSpec

SCENES, SEED = 256, 2026  # other scenes than those of the training
POINTS = {"A": (0.68, 0.6), "B": (0.25, 0.6)}
BOX = {"left": 0.5, "top": 0.0, "right": 1.0, "bottom": 1.0}
Line = tuple[str, str, Tensor, str]  # measure, pictures, errors [N], unit
MARGIN = 2  # rows: points that are closer than this in depth are left out


def judged_world(judges: Path) -> dict[str, dict[str, Any]]:
    """Return lines of the table for what the judges in the folder say of random scenes."""
    scenes = sample_scenes(SCENES, torch.Generator().manual_seed(SEED), pairs=0.5)
    by_judge = {
        "depth": _depth,
        "detector": _houses,
        "segmenter": _horizon,
        "image-text": _prompts,
        "features": _likeness,
    }
    found = [
        line
        for name, judge in by_judge.items()
        if (judges / name).exists()
        for line in judge(scenes, judges / name)
    ]
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


def _depth(scenes: Scene, model: Path) -> list[Line]:
    """Judge the order of two points that differ in depth."""
    drawn = render(scenes)
    parameters = DepthOrderMeasure(name="o", model=str(model), points="points", margin=0.0)
    found = _judge(drawn.images, DepthOrder(parameters))
    near, far = (drawn.closeness[:, int(y * SIZE), int(x * SIZE)] for x, y in POINTS.values())
    apart = (near - far).abs() >= MARGIN
    wrong = (found[0].success != (near > far).float())[apart].float()
    return [("depth-order", f"two points of a scene, {MARGIN} rows or more apart", wrong, "wrong order")]


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
        ("placement", "scenes with a house", *_judged(off, "the house")),
    ]


def _horizon(scenes: Scene, model: Path) -> list[Line]:
    """Judge where the sky ends, as its distance to the upper edge of the picture."""
    (found,) = _judge(
        render(scenes).images,
        Boundary(BoundaryMeasure(name="b", model=str(model), label="sky", target="top")),
    )
    off = (found.value - scenes.horizon / SIZE).abs()
    return [("boundary", "where the sky ends", *_judged(off, "the height"))]


def _prompts(scenes: Scene, model: Path) -> list[Line]:
    """Judge which of two captions is of a scene, and which of two scenes is of a caption."""
    images = render(scenes).images
    texts = captions(scenes.kind, scenes.look, torch.Generator().manual_seed(0))
    likeness = Similarity(SimilarityMeasure(name="s", model=str(model)))
    liked = Preference(PreferenceMeasure(name="p", model=str(model), worse_by=0.0))
    own, judged = _judge(images, likeness, liked, prompts=texts, base=images.roll(1, 0))
    (other,) = _judge(images, likeness, prompts=texts[-1:] + texts[:-1])
    apart = _differs_from_the_last(scenes)
    missed = (own.value <= other.value)[apart].float()
    assert judged.success is not None
    return [
        ("similarity", "a scene, its prompt and another scene's", missed, "the other's more similar"),
        ("preference", "a prompt, its scene and another", 1 - judged.success[apart], "the other preferred"),
    ]


def _likeness(scenes: Scene, model: Path) -> list[Line]:
    """Judge which of two scenes shows what a third shows: one of other places and colours, or another's."""
    u = torch.rand(len(scenes), UNIFORMS, generator=torch.Generator().manual_seed(1))
    again = render(scene_from_uniforms(u, scenes.kind, scenes.look)).images
    distance = Distance(DistanceMeasure(name="d", model=str(model)))
    images = render(scenes).images
    (alike,), (other,) = (_judge(one, distance, base=images) for one in (again, images.roll(1, 0)))
    missed = (alike.value >= other.value)[_differs_from_the_last(scenes)].float()
    return [("distance", "a scene, another of its prompt, one of another", missed, "the last nearer")]


def _differs_from_the_last(scenes: Scene) -> Tensor:
    """Return whether each scene shows something else than the one before it, [B] bool."""
    shown = contents(scenes)
    return (shown != shown.roll(1, 0)).any(1)


def _judge(
    images: Tensor, *measures: Measure, prompts: list[str] | None = None, base: Tensor | None = None
) -> list[Judgement]:
    points = tuple(PointSpec(label=label, x=x, y=y) for label, (x, y) in POINTS.items())
    spec = ControlSpec(
        name="c",
        prompts=PromptsSpec(train=("a house",)),
        visual_prompts={
            "points": PointsPrompt(points=points),
            "box": BoxPrompt(**BOX),
            "top": LinePrompt(orientation="horizontal", position=0.0),
        },
        questions=(Question(name="q", question="Is it?", answer="Yes"),),
    )
    (found,) = judge_in_turn(measures, lambda: [Evidence(images, spec, base, prompts)], torch.device("cpu"))
    return [found[measure] for measure in measures]


def _judged(off: Tensor, unit: str) -> tuple[Tensor, str]:
    """Return the errors of pictures that were judged, and their unit with the share that were not."""
    unjudged = off.isnan()
    return off[~unjudged], f"{unit}; {unjudged.float().mean():.0%} unjudged"


def _corners(boxes: Tensor) -> Tensor:
    """Return left, top, right and bottom of boxes [N, 4] (middle, width, height)."""
    middle, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([middle - size / 2, middle + size / 2], 1)
