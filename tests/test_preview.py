"""The preview: each warning has a spec that triggers it and one that does not, on the miniature."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.nn import functional as F
from typer.testing import CliRunner
from vlm_builders import FAMILIES

from dualproc_cli import preview as room
from dualproc_cli.__main__ import app
from dualproc_cli.compiler import View
from dualproc_cli.generator import load_generator
from dualproc_cli.learning import control
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.pictures import save_png
from dualproc_cli.preview.altering import altered_views
from dualproc_cli.preview.asking import Answers, ask, gradient_sizes
from dualproc_cli.spec import GeneratorSpec, VlmSpec, load_spec
from dualproc_cli.visual_prompt import window
from dualproc_cli.vlm import AnswerScores, load_vlm, seen_by

CPU = torch.device("cpu")
LINE = {"type": "line", "position": 0.65}
PALETTE = {"type": "palette", "colors": ["#fae8ad", "#52a394", "#f27a6b"]}
PICTURE = {"type": "image", "path": "picture.png"}
HOUSE = {"name": "q", "question": "Is there a house?", "answer": "Yes", "alternatives": ["No"]}
AT_THE_LINE = {
    **HOUSE,
    "question": "Is the horizon at the red line?",
    "visual_prompt": "target",
    "paraphrases": ["Does the horizon lie on the red line?"],
}


def asks(question, **changes):
    """A question of another wording, without a visual prompt."""
    return {**HOUSE, "question": question, **changes}


@pytest.fixture(scope="module")
def previewed(tmp_path_factory):
    """Previews a spec of one question and one visual prompt on the miniature, which is loaded once."""
    folder, known = tmp_path_factory.mktemp("specs"), {}
    generator = load_generator(GeneratorSpec(width=64, height=64, steps=1, guidance_scale=0.0), CPU)
    vlm = load_vlm(VlmSpec(), CPU)
    models = SimpleNamespace(load_generator=lambda: generator, load_vlm=lambda: vlm)
    save_png(torch.full((3, 8, 8), 0.25), folder / "picture.png")

    def run(question, prompt=LINE):
        spec = {
            "name": "tried",
            "prompts": {"train": ["a house in a field", "a house at night"]},
            "questions": [question],
        }
        if question.get("visual_prompt"):
            spec["visual_prompts"] = {"target": prompt}
        text = yaml.safe_dump(spec)
        if text not in known:
            (folder / "spec.yaml").write_text(text)
            known[text] = room.preview(load_spec(folder / "spec.yaml"), CPU, seeds=1)
        return known[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualproc_cli.preview.full.plan_learning", lambda loaded, device: models)
        yield run


def kinds(found):
    return {finding.kind for finding in found.findings}


CASES = {
    "already-true": ([HOUSE], [asks("Is there a ball?")]),
    "never-true": ([AT_THE_LINE, PICTURE], [AT_THE_LINE]),
    "bias": ([asks("Does the picture have artefacts?")], [AT_THE_LINE]),
    "opposite": (
        [asks("Is the horizon above the red line?")],
        [asks("Is the horizon above the red line?", visual_prompt="target")],
    ),
    "overlay": ([{**HOUSE, "visual_prompt": "target"}], [AT_THE_LINE]),
    "wordings": (
        [{**AT_THE_LINE, "paraphrases": ["Is the horizon away from the red line?"]}],
        [AT_THE_LINE],
    ),
    "hidden": ([AT_THE_LINE, PALETTE], [AT_THE_LINE, {**PALETTE, "size": 0.09}]),
    "resolution": ([AT_THE_LINE, {**LINE, "thickness": 0.005}], [AT_THE_LINE]),
    "several-tokens": ([asks("What is in the picture?", answer="a house", alternatives=[])], [HOUSE]),
    "other-answers": ([asks("What is in the picture?")], [HOUSE]),
    "undecided": ([asks("Is point A closer than point B?")], [HOUSE]),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_warning(previewed, kind):
    faulty, sound = CASES[kind]
    found = previewed(*faulty)
    print(*found.findings, sep="\n")
    for one in found.asked: print(one.pictures.probability, one.nothing.probability, one.gradient)
    assert kind in kinds(found)
    assert kind not in kinds(previewed(*sound))


def test_a_good_spec_is_not_warned_of(previewed):
    found = previewed(AT_THE_LINE)
    assert not found.findings
    (asked,) = found.asked
    opposites = asked.question.paraphrases[asked.own - 1 :]
    assert opposites == ("Is the horizon away from the red line?", "Is the red line away from the horizon?")
    assert (asked.pictures.probability[: asked.own] < 0.5).all()
    assert (asked.pictures.probability[asked.own :] > 0.5).all()
