"""The miniature's measures: correct on constructed scenes, and refused where they cannot judge."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from scenes import make_scene

from dualproc_cli.measures import Evidence, measures_of, spread
from dualproc_cli.miniature.world.goals import KINDS
from dualproc_cli.miniature.world.judging import PROPERTIES, UNEVEN
from dualproc_cli.miniature.world.language import Wording
from dualproc_cli.miniature.world.measures import VARIETIES, Artefact, companions, measure_named, suitable
from dualproc_cli.miniature.world.reader import Reading
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    FAMILY_COLORS,
    NIGHT,
    SEA,
    WINTER,
    Scene,
    sample_scenes,
)
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
from dualproc_cli.spec.measures import MiniatureMeasure

# Success

SPEC = Path(__file__).parents[1] / "specs" / "horizon-position.yaml"
LINE = LinePrompt(position=40 / 64, thickness=1.5 / 64)
UPRIGHT = LinePrompt(orientation="vertical", position=0.5)
BOX = BoxPrompt(left=15 / 64, top=25 / 64, right=50 / 64, bottom=60 / 64)
POINTS = PointsPrompt(points=(PointSpec(label="B", x=0.1, y=0.2), PointSpec(label="A", x=0.5, y=0.8)))
MEADOW = PalettePrompt(colors=("#87c2f0", "#73b052", "#d95445"))
OWN = PalettePrompt(colors=("#102030", "#a02030", "#20a030"))
own = torch.tensor([[16, 32, 48], [160, 32, 48], [32, 160, 48]]) / 255


def goal(text, visual_prompt=None, answer="Yes"):
    return text, visual_prompt, answer


def control(*goals, **changes):
    """Return a control for the miniature that asks ``goals`` and measures the horizon."""
    spec = {
        "name": "c",
        "generator": GeneratorSpec(width=64, height=64),
        "prompts": PromptsSpec(train=("a house",)),
        "visual_prompts": {f"p{index}": prompt for index, (_, prompt, _) in enumerate(goals) if prompt},
        "questions": tuple(
            Question(name=f"q{index}", question=text, answer=answer, visual_prompt=prompt and f"p{index}")
            for index, (text, prompt, answer) in enumerate(goals)
        ),
        "evaluate": EvaluateSpec(measures=("horizon",)),
    }
    return ControlSpec(**{**spec, **changes})


def judged(measure, goals, *scenes, prompts=("a house in a field",)):
    scene = Scene.concatenate(list(scenes))
    evidence = Evidence(render(scene).images, control(*goals or [goal("Is it night?")]), prompts=prompts)
    return measure_named(measure).judge_reading(Reading(scene, torch.zeros(len(scene))), evidence)


def met(measure, goals, *scenes, **options):
    return judged(measure, goals, *scenes, **options).success.bool().tolist()


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
        ("look", "Is it night?", "Is it day?", None, [{"look": NIGHT}], [{}, {"look": WINTER}]),
        ("look", "Is there snow?", "Is it summer?", None, [{"look": WINTER}], [{}, {"look": SEA}]),
        ("content", "Are there two subjects?", "Is there one subject?", None,
         [{"far": "ball"}], [{}]),
        ("content", "Is the house in front of the tree?", "Is the house behind the tree?", None,
         [{"far": "tree"}], [{"near": "tree", "far": "house"}]),
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
        ("content", "Is the house in front of the tree?", None),
        (
            "depth",
            "Is point A closer than point B?",
            PointsPrompt(points=(PointSpec(label="A", x=0.1, y=0.9), PointSpec(label="B", x=0.9, y=0.9))),
        ),  # equally far
    ],
)
def test_a_doubtful_scene_meets_neither_answer(measure, text, visual_prompt, answer):
    assert met(measure, [goal(text, visual_prompt, answer)], make_scene("house")) == [False]


@pytest.mark.parametrize(
    ("measure", "text", "answer", "true", "false"),
    [
        ("look", "What time is it?", "night", [{"look": NIGHT}], [{}]),
        ("look", "What season is it?", "Winter.", [{"look": WINTER}], [{"look": NIGHT}]),
        ("look", "Is there the sea?", "Yes", [{"look": SEA}], [{}]),
        ("content", "How many subjects are there?", "two", [{"far": "ball"}], [{}]),
        ("content", "What is in the picture?", "a house", [{}], [{"far": "ball"}, {"near": "ball"}]),
        ("content", "What does the picture show?", "a ball and a house",
         [{"far": "ball"}, {"near": "ball", "far": "house"}], [{}]),
        ("content", "Is there a tree?", "Yes", [{"far": "tree"}], [{}]),
    ],
)  # fmt: skip
def test_answers(measure, text, answer, true, false):
    scenes = [make_scene(**changes) for changes in (*true, *false)]
    expected = [True] * len(true) + [False] * len(false)
    assert met(measure, [goal(text, answer=answer)], *scenes) == expected


def test_a_palette_is_judged_by_its_worst_color_and_by_even_areas():
    asked = [goal("Do the colors match the palette?", MEADOW)]
    off = FAMILY_COLORS[0].clone()
    off[2] = torch.tensor([0.9, 0.7, 0.3])  # the subject's, a small part of the picture
    scene = Scene.concatenate([make_scene(), make_scene(colors=off), make_scene(), make_scene()])
    images = render(scene).images
    images[2, :, 44:] += 0.15 * torch.linspace(-1, 1, 64)  # a rainbow ground
    images[3, :, 44:] += 0.01 * torch.linspace(-1, 1, 64)
    evidence = Evidence(images, control(*asked))
    found = measure_named("palette").judge_reading(Reading(scene, torch.zeros(4)), evidence)
    assert found.success.tolist() == [1, 0, 0, 1]
    assert found.value[0].item() == pytest.approx(UNEVEN, abs=0.1)


def test_a_subject_that_does_not_show_its_color_does_not_count_for_a_palette():
    off = FAMILY_COLORS[0].clone()
    off[2] = torch.tensor([0.9, 0.7, 0.3])
    asked = [goal("Do the colors match the palette?", MEADOW)]
    scenes = [make_scene("tree", colors=off), make_scene("tree", colors=off, on=(True, False))]
    assert met("palette", asked, *scenes) == [False, True]


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
    # Where the spec asks for other subjects than the prompt's, it decides.
    same, other = goal("Is there a house?"), goal("What is in the picture?", answer="a ball")
    assert met("subject", [same], *scenes, prompts=prompts)[:2] == [True, False]
    assert met("subject", [other], *scenes, prompts=prompts) == [False, False, True, False]


@pytest.mark.parametrize(
    ("measure", "bad"),
    [
        ("horizon", goal("Is the skyline at the red line?", LINE)),
        ("horizon", goal("Is the horizon at the red line?", UPRIGHT)),
        ("horizon", goal("Is the horizon at the red line?", LINE, answer="maybe")),
        ("look", goal("What time is it?", answer="noon")),
        ("content", goal("What is in the picture?", answer="a dog")),
        ("line-weight", goal("Is the horizon at the red line?", LINE)),
        ("depth", goal("Is point A closer than point B?", PointsPrompt(points=POINTS.points[:1]))),
        ("composition", goal("Is the house inside the red box?", UPRIGHT)),
        ("palette", goal("Do the colors match the palette?")),
    ],
)
def test_nothing_to_judge(measure, bad):
    refusal = measure_named(measure).refuses(control(bad))
    assert refusal.problem == f"{measure} has no question that it can judge"
    assert refusal.expected.startswith("one like '")


def test_whether_a_picture_is_clean_is_no_goal(monkeypatch):
    asked = {"is the picture clean?": Wording("Is the picture clean?", "clean")}
    monkeypatch.setattr("dualproc_cli.miniature.world.goals._ASKED", asked)
    spec = control(goal("Is the picture clean?"))
    assert suitable(spec) == ()
    assert Artefact("residual").judged_questions(spec) == ("q0",)
    assert Artefact("texture").judged_questions(spec) == ()


def test_every_measure_of_the_language_is_there():
    assert set(get_args(MiniatureMeasure)) == {*KINDS, "subject"}


@pytest.mark.parametrize("measure", get_args(MiniatureMeasure))
def test_pictures_of_other_models_and_sizes_are_refused(measure):
    asked = goal("Is the horizon at the red line?", LINE)
    refusal = measure_named(measure).refuses(control(asked, generator=GeneratorSpec(width=512, height=64)))
    assert refusal.problem == f"{measure} reads 64x64 pictures, not 512x64"
    other = GeneratorSpec(model="org/other", width=64, height=64)
    refusal = measure_named(measure).refuses(control(asked, generator=other))
    assert refusal.problem == f'{measure} reads the miniature\'s pictures, not those of "org/other"'


def test_what_can_be_judged_is_not_refused():
    spec = control(goal("Is the horizon at the red line?", LINE))
    assert measure_named("horizon").refuses(spec) is None
    assert measure_named("subject").refuses(spec) is None


def test_value_is_how_far_inside_the_tolerance_a_picture_is():
    asked = goal("Is the horizon at the red line?", LINE)
    scenes = make_scene(horizon=40.0), make_scene(horizon=41.5), make_scene(horizon=45.0)
    assert judged("horizon", [asked], *scenes).value.tolist() == [2.0, 0.5, -3.0]
    assert judged("horizon", [goal(*asked[:2], "No")], *scenes).value.tolist() == [-2.0, -0.5, 3.0]


def test_refusing_needs_no_torch():
    code = (
        "import sys; from dualproc_cli.measures import measures_of_evaluation; "
        "from dualproc_cli.spec import load_spec; from pathlib import Path; "
        f"spec = load_spec(Path({str(SPEC)!r})).spec; "
        "refused = [measure.refuses(spec) for measure in measures_of_evaluation(spec)]; "
        "assert not any(refused); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Whole pictures


def test_pictures_are_read_once_for_all_measures(monkeypatch):
    scene = Scene.concatenate([make_scene(horizon=40.0), make_scene(horizon=30.0)])
    calls = []

    def read(reader, images):
        calls.append(len(images))
        return Reading(scene, torch.tensor([0.01, 0.02]))

    monkeypatch.setattr("dualproc_cli.miniature.world.reader.read", read)
    spec = control(
        goal("Is the horizon at the red line?", LINE), evaluate=EvaluateSpec(measures=("horizon", "subject"))
    )
    images = render(scene).images
    evidence = Evidence(images, spec, images, ["a house", "a tree"])
    found = {(measure.role, measure.name): measure.judge(evidence) for measure in measures_of(spec)}
    assert calls == [2]
    assert found["goal", "horizon"].success.tolist() == [1, 0]
    assert found["goal", "subject"].success.tolist() == [1, 0]
    assert found["artefact", "residual"].value.tolist() == pytest.approx([0.01, 0.02])
    assert found["artefact", "texture"].value.tolist() == [0, 0]
    assert found["variety", "horizon"].value.tolist() == [[40], [30]]


def test_unknown_prompts_and_other_sizes_are_unjudged():
    spec = control(goal("Is the horizon at the red line?", LINE))
    large = Evidence(torch.zeros(2, 3, 72, 64), spec, None, ["a house"] * 2)
    for measure in (measure_named("horizon"), measure_named("subject"), *companions()):
        assert measure.judge(large).value.isnan().all()
    unknown = Evidence(render(make_scene()).images, spec)
    assert measure_named("subject").judge(unknown).success.isnan().all()
    assert not measure_named("horizon").judge(unknown).success.isnan().any()


# Variety


def test_a_collapse_has_no_spread():
    assert tuple(PROPERTIES) == VARIETIES
    scenes = sample_scenes(32, torch.Generator().manual_seed(0))
    for property_of in PROPERTIES.values():
        values = property_of(scenes)
        assert spread(values) > 0
        assert spread(values[:1].expand(len(values), -1)) == 0
