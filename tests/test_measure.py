"""The independent measures: right on constructed scenes, for either answer; loud where they cannot judge."""

from typing import get_args

import pytest
import torch
from scenes import make_scene

from dualproc_cli.errors import UserError
from dualproc_cli.evaluation.compare import _spread_ratios
from dualproc_cli.evaluation.judge import Judge
from dualproc_cli.miniature.world.measures import KINDS, Goal, properties, spread, success
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.scene import FAMILY_COLORS, Scene, sample_scenes
from dualproc_cli.spec import (
    BoxPrompt,
    ControlSpec,
    EvaluateSpec,
    GeneratorSpec,
    LinePrompt,
    PalettePrompt,
    PointSpec,
    PointsPrompt,
    PromptsSpec,
    Question,
)
from dualproc_cli.spec.model import Measure

# Success

LINE = LinePrompt(position=40 / 64, thickness=1.5 / 64)
UPRIGHT = LinePrompt(orientation="vertical", position=0.5)
BOX = BoxPrompt(left=15 / 64, top=25 / 64, right=50 / 64, bottom=60 / 64)
POINTS = PointsPrompt(points=(PointSpec(label="B", x=0.1, y=0.2), PointSpec(label="A", x=0.5, y=0.8)))
MEADOW = PalettePrompt(colors=("#87c2f0", "#73b052", "#d95445"))
OWN = PalettePrompt(colors=("#102030", "#a02030", "#20a030"))
own = torch.tensor([[16, 32, 48], [160, 32, 48], [32, 160, 48]]) / 255


def goal(text, visual_prompt=None, answer="Yes"):
    return Goal(Question(name="q", question=text, answer=answer), visual_prompt)


def met(measure, goals, *scenes, prompts=("a house in a field",)):
    scene = Scene.concatenate(list(scenes))
    return success(measure, Reading(scene, torch.zeros(len(scene))), goals, prompts).tolist()


@pytest.mark.parametrize(
    ("measure", "text", "opposite", "visual_prompt", "true", "false"),
    [
        ("horizon", "Is the horizon at the red line?", "Is the horizon away from the red line?", LINE,
         [{}, {"horizon": 38.1}, {"horizon": 41.9}], [{"horizon": 37.9}, {"horizon": 46.0}]),
        ("horizon", "Is the horizon above the red line?", "Is the horizon below the red line?", LINE,
         [{"horizon": 30.0}], [{"horizon": 50.0}]),
        ("line-weight", "Are the outlines as thick as the red line?",
         "Do the outlines differ from the red line?", LINE,
         [{}, {"outline": 1.9}], [{"outline": 2.1}, {"outline": 0.9}]),
        ("line-weight", "Are the outlines thicker than the red line?",
         "Are the outlines thinner than the red line?", LINE, [{"outline": 2.5}], [{"outline": 0.5}]),
        ("palette", "Do the colors match the palette?", "Do the colors differ from the palette?", MEADOW,
         [{}, {"colors": FAMILY_COLORS[0] + 0.03}],
         [{"colors": FAMILY_COLORS[1]}, {"colors": FAMILY_COLORS[3]}]),
        ("palette", "Does the picture use the palette?", "Do the colors differ from the palette?", OWN,
         [{"colors": own}], [{}, {"colors": own.flip(0)}]),
        ("depth", "Is point A closer than point B?", "Is point B closer than point A?", POINTS,
         [{}, {"x": (10.0, 0.0)}], []),
        ("depth", "Is point B farther than point A?", "Is point A farther than point B?", POINTS, [{}], []),
        ("composition", "Is the house inside the red box?", "Is the house outside the red box?", BOX,
         [{}, {"x": (36.0, 0.0)}], [{"x": (42.0, 0.0)}, {"base": (63.0, 0.0)}, {"scale": (1.5, 1.0)}]),
        ("composition", "Is the house on the red line?", "Is the house away from the red line?", UPRIGHT,
         [{}, {"x": (35.9, 0.0)}], [{"x": (36.1, 0.0)}, {"x": (10.0, 0.0)}]),
        ("composition", "Is the house left of the red line?", "Is the house right of the red line?", UPRIGHT,
         [{"x": (20.0, 0.0)}], [{"x": (40.0, 0.0)}]),
        ("attributes", "Is the house lit?", "Is the house dark?", None,
         [{"on": (True, False)}, {"near": "ball", "far": "house", "on": (False, True)}],
         [{"on": (False, True)}, {"near": "ball", "far": "house", "on": (True, False)}]),
    ],
)  # fmt: skip
def test_measure(measure, text, opposite, visual_prompt, true, false):
    scenes = [make_scene(**changes) for changes in (*true, *false)]
    yes = [True] * len(true) + [False] * len(false)
    no = [not value for value in yes]
    assert met(measure, [goal(text, visual_prompt)], *scenes) == yes
    assert met(measure, [goal(text, visual_prompt, "No")], *scenes) == no
    assert met(measure, [goal(opposite, visual_prompt)], *scenes) == no
    assert met(measure, [goal(opposite, visual_prompt, "No.")], *scenes) == yes


@pytest.mark.parametrize("answer", ["Yes", "No"])
@pytest.mark.parametrize(
    ("measure", "text", "visual_prompt"),
    [
        ("composition", "Is the tree inside the red box?", BOX),  # no tree is there
        ("composition", "Is the tree on the red line?", UPRIGHT),
        ("attributes", "Is the tree bare?", None),
        (
            "depth",
            "Is point A closer than point B?",
            PointsPrompt(points=(PointSpec(label="A", x=0.1, y=0.9), PointSpec(label="B", x=0.9, y=0.9))),
        ),  # equally far
    ],
)
def test_in_doubt_no_answer_is_met(measure, text, visual_prompt, answer):
    assert met(measure, [goal(text, visual_prompt, answer)], make_scene("house")) == [False]


def test_palette_of_any_number_of_colors_is_compared_without_order():
    text = "Do the colors match the palette?"
    four = PalettePrompt(colors=(*OWN.colors, "white"))
    scenes = make_scene(colors=own), make_scene(colors=own.flip(0)), make_scene()
    assert met("palette", [goal(text, four)], *scenes) == [True, True, False]


def test_every_goal_must_be_met():
    goals = [goal("Is the horizon at the red line?", LINE), goal("Is the horizon above the red line?", LINE)]
    assert met("horizon", goals, make_scene(horizon=39.0), make_scene(horizon=41.0)) == [True, False]


def test_subject():
    prompts = ["a ball in front of a house", "a house", "a ball", "a dog"]
    scenes = [make_scene("ball", "house"), make_scene("ball", "house"), make_scene("ball"), make_scene()]
    assert met("subject", [], *scenes, prompts=prompts) == [True, False, True, False]


@pytest.mark.parametrize(
    ("measure", "bad"),
    [
        ("horizon", goal("Is the skyline at the red line?", LINE)),
        ("horizon", goal("Is the horizon at the red line?", UPRIGHT)),
        ("horizon", goal("Is the horizon at the red line?", LINE, answer="maybe")),
        ("line-weight", goal("Is the horizon at the red line?", LINE)),
        ("depth", goal("Is point A closer than point B?", PointsPrompt(points=POINTS.points[:1]))),
        ("composition", goal("Is the house inside the red box?", UPRIGHT)),
        ("palette", goal("Do the colors match the palette?")),
    ],
)
def test_nothing_to_judge(measure, bad):
    with pytest.raises(UserError, match=f"measures: {measure}: no question that it can judge; expected"):
        met(measure, [bad], make_scene())


def test_every_measure_of_the_language_is_there():
    assert set(get_args(Measure)) == {*KINDS, "subject"}


def control(**changes):
    spec = {
        "name": "c",
        "generator": GeneratorSpec(width=64, height=64),
        "prompts": PromptsSpec(train=("a house",)),
        "visual_prompts": {"target": LINE},
        "questions": (Question(name="q", question="Is it night?", answer="Yes", visual_prompt="target"),),
        "evaluate": EvaluateSpec(measures=("horizon",)),
    }
    return ControlSpec(**{**spec, **changes})


def test_judge_refuses_before_anything_is_drawn():
    with pytest.raises(UserError, match="horizon: no question that it can judge"):
        Judge(control())
    with pytest.raises(UserError, match="64x64 pictures of the miniature's world, not 512x64"):
        Judge(control(generator=GeneratorSpec(width=512, height=64)))


# Spread


def test_a_collapse_has_no_spread():
    scenes = sample_scenes(32, torch.Generator().manual_seed(0))
    varied = properties(Reading(scenes, torch.zeros(len(scenes))))
    collapsed = {name: values[:1].expand(len(scenes), -1) for name, values in varied.items()}
    assert all(spread(values) > 0 for values in varied.values())
    assert all(spread(values) == 0 for values in collapsed.values())
    kept = _spread_ratios([varied, varied], [varied, collapsed])
    assert kept == pytest.approx(dict.fromkeys(varied, 0.5**0.5), abs=1e-5)
    assert _spread_ratios([collapsed], [varied]) == {}, "what the base does not vary cannot be kept"
