"""The preview: each warning has a spec that triggers it and one that does not, on the miniature."""

import hashlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import CLIPImageProcessor, Idefics3ImageProcessor
from typer.testing import CliRunner

from dualproc_cli import preview as room
from dualproc_cli.__main__ import app
from dualproc_cli.compiler import View
from dualproc_cli.generator import load_generator
from dualproc_cli.learning import control
from dualproc_cli.objectives import OBJECTIVES
from dualproc_cli.pictures import save_png
from dualproc_cli.preview.altering import altered_views
from dualproc_cli.preview.asking import SMALL, Answers, gradient_sizes
from dualproc_cli.preview.findings import question_findings
from dualproc_cli.spec import GeneratorSpec, LinePrompt, Question, VlmSpec, load_spec
from dualproc_cli.visual_prompt import draw_layer, window
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

    def run(question, prompt=LINE, prompts=("a house in a field", "a house at night")):
        spec = {
            "name": "tried",
            "prompts": {"train": list(prompts)},
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
    "never-true": ([{**HOUSE, "visual_prompt": "target"}, PICTURE], [AT_THE_LINE]),
    "bias": ([asks("Does the picture have artefacts?")], [AT_THE_LINE]),
    "opposite": (
        [{**AT_THE_LINE, "alternatives": ["night"]}],  # which it never says, and so it says Yes to anything
        [AT_THE_LINE],
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
    assert kind in kinds(previewed(*faulty))
    assert kind not in kinds(previewed(*sound))


def test_a_good_spec_is_not_warned_of(previewed):
    found = previewed(AT_THE_LINE)
    assert not found.findings
    (asked,) = found.asked
    opposites = asked.question.paraphrases[asked.own - 1 :]
    assert opposites == ("Is the horizon away from the red line?", "Is the red line away from the horizon?")
    assert (asked.pictures.probability[: asked.own] < 0.5).all()
    assert (asked.pictures.probability[asked.own :] > 0.5).all()


def test_what_only_keeps_is_a_note_and_several_questions_are_told_in_their_order(previewed):
    asked = [*previewed(AT_THE_LINE).asked, *previewed(HOUSE).asked]
    (finding,) = question_findings(asked)
    assert (finding.kind, finding.level) == ("already-true", "note")


# Its parts


def view_of(scorer=None, layer=None, size=(8, 8)):
    question = Question(
        name="q", question="Is it?", answer="Yes", visual_prompt="target" if layer is not None else None
    )
    return View("none", layer, None, window(None, *size, "q"), size, (question,), scorer)


def test_the_gradient_is_the_fall_of_the_loss_by_a_small_change_of_every_pixel():
    def scorer(images, beside, asked):
        signs = torch.ones(8, 8)
        signs[4:] = -3
        return AnswerScores([(signs * images).sum((1, 2, 3))[:, None]], [torch.tensor([1])])

    (size,) = gradient_sizes(view_of(scorer), torch.rand(2, 3, 8, 8), OBJECTIVES["likelihood"])
    assert size == pytest.approx(SMALL * 3 * (32 * 1 + 32 * 3))


def test_log_odds():
    answers = Answers(torch.tensor([[0.8, 1.0]]).double().log(), torch.ones(1, 2), torch.tensor([1]))
    assert answers.log_odds[0, 0].item() == pytest.approx(math.log(4))
    assert answers.log_odds[0, 1] == -math.log(1e-9)


def test_a_line_is_moved_made_thicker_and_taken_away():
    prompt = LinePrompt(position=0.45)
    loaded = SimpleNamespace(spec=SimpleNamespace(visual_prompts={"target": prompt}), folder=None)
    found = altered_views(view_of(layer=draw_layer(prompt, 64, 64, None), size=(64, 64)), loaded)
    assert list(found) == ["taken away", "at 0.2", "at 0.6", "at 0.8", "thicker", "thinner"]
    assert found["taken away"].layer is None
    rows = torch.arange(64) + 0.5
    opacity = found["at 0.8"].layer[3, :, 0]
    assert (opacity * rows).sum() / opacity.sum() / 64 == pytest.approx(0.8, abs=1e-3)
    assert found["thicker"].layer[3].mean() == pytest.approx(2.5 * 0.03, abs=1e-3)


def processor(image_processor):
    return SimpleNamespace(image_processor=image_processor)


def test_a_picture_is_seen_as_the_processor_resizes_and_crops_it():
    image = torch.zeros(3, 48, 96)
    image[0, :, :16] = 1.0  # red on the left, which is cropped
    image[1, :24] = 1.0
    clip = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    seen = seen_by(processor(clip), image)
    assert seen.shape == (3, 24, 24)
    assert seen[0].max() < 1e-3
    assert seen[1, :10].min() > 0.95
    assert seen[1, 14:].max() < 0.05
    assert seen.aminmax() == (0, 1)


def test_a_picture_of_the_right_size_is_seen_as_it_is():
    options = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    idefics = Idefics3ImageProcessor(**options, do_image_splitting=False)
    image = torch.rand(3, 64, 64)
    assert torch.equal(seen_by(processor(idefics), image), image)


# The command, and the first look of learn


def dualproc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_numbers_and_pictures(small_spec, tmp_path):
    out = tmp_path / "out"
    run = ["preview", small_spec(tmp_path), "-o", out, "--seeds", 1, "--device", "cpu"]
    first = dualproc(*run)
    assert first.exit_code == 0, first.output
    assert "at-the-line" in first.stdout
    assert sorted(file.name for file in out.iterdir()) == ["preview.json", "preview.png"]
    again = dualproc(*run, "--json")  # an earlier preview is replaced
    assert json.loads(again.stdout) == json.loads((out / "preview.json").read_text())
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []

    (out / "preview.json").unlink()
    refused = dualproc(*run)
    assert refused.exit_code == 2
    assert (
        refused.stderr.splitlines()[-1]
        == f"{out}: exists and is not a preview; choose another output with -o"
    )
    assert [file.name for file in out.iterdir()] == ["preview.png"]


def test_learn_looks_first_and_learns_the_same(small_spec, tmp_path, monkeypatch):
    def learn(name, *options):
        result = dualproc(*options, "learn", spec, "-o", tmp_path / name, "--device", "cpu")
        assert result.exit_code == 0, result.output
        adapter = tmp_path / name / "pytorch_lora_weights.safetensors"
        return result.stderr, hashlib.sha256(adapter.read_bytes()).digest()

    spec = small_spec(tmp_path, {"learn": {"steps": 2}})
    told, looked = learn("looked")
    assert "before learning: P(at-the-line)" in told
    assert "P(night)" in told
    quiet, again = learn("quiet", "--quiet")
    assert quiet == ""
    monkeypatch.setattr(control, "first_look", lambda *arguments: SimpleNamespace(lines=[]))
    assert learn("not-looked")[1] == looked == again
