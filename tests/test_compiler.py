"""From a spec to its loss: views, wordings, objectives, probabilities, jitter."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image
from small_vlm import make_vlm
from torch.nn import functional

from dualproc_cli.compiler import CompositeLoss, View, compile_loss, plan
from dualproc_cli.errors import UserError
from dualproc_cli.jitter import Room, jittered
from dualproc_cli.objectives import OBJECTIVES, log_share
from dualproc_cli.spec import (
    BoxPrompt,
    ControlSpec,
    GeneratorSpec,
    ImagePrompt,
    JitterSpec,
    LearnSpec,
    LinePrompt,
    LoadedSpec,
    PalettePrompt,
    PromptsSpec,
    Question,
    RegionSpec,
    SpecError,
    VlmSpec,
    load_spec,
)
from dualproc_cli.visual_prompt import Window, composite, draw_layer, window
from dualproc_cli.vlm import AnswerScorer, AnswerScores, load_vlm

RED_LINE = LinePrompt(position=0.65)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def vlm(folder):
    return load_vlm(VlmSpec(model=str(folder)), torch.device("cpu"))


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def question(name="q", text="Is it night?", **keys):
    return Question(name=name, question=text, **{"answer": "Yes", **keys})


def loaded(folder, *questions, visual_prompts=None, **learn):
    spec = ControlSpec(
        name="test",
        generator=GeneratorSpec(width=64, height=64),
        vlm=VlmSpec(model=str(folder)),
        prompts=PromptsSpec(train=("a house",)),
        visual_prompts=visual_prompts or {},
        questions=questions,
        learn=LearnSpec(**learn),
    )
    return LoadedSpec(spec, folder, "", {})


def gradient(value, images):
    return torch.autograd.grad(value, images, retain_graph=True)[0]


class Scripted:
    """A scorer that returns given probabilities of each question's candidates."""

    def __init__(self, *answers):
        self.answers = answers  # [B, A_q] log-likelihoods and [A_q] token counts
        self.asked = []

    def __call__(self, images, beside, asked):
        self.asked.append(list(asked))
        return AnswerScores([a.log() for a, _ in self.answers], [torch.tensor(n) for _, n in self.answers])


def scripted(*questions, answers, objective="likelihood"):
    view = View("none", None, None, Window(0, 0, 8, 8), (8, 8), questions, Scripted(*answers))
    return CompositeLoss([view], LearnSpec(objective=objective))


ONE = (torch.tensor([[0.25, 0.5], [0.5, 0.125]]), [2, 1])  # two pictures, the answer and one alternative
LONE = (torch.tensor([[0.5], [0.125]]), [3])
ASKED = (question("one", alternatives=("No",), weight=3.0), question("lone", weight=1.0))


def test_likelihood_is_the_mean_over_answer_tokens_and_pictures():
    report = scripted(*ASKED, answers=[ONE, LONE])(torch.zeros(2, 3, 8, 8))
    one = -(math.log(0.25) / 2 + math.log(0.5) / 2) / 2
    lone = -(math.log(0.5) / 3 + math.log(0.125) / 3) / 2
    assert report.losses["one"].item() == pytest.approx(one)
    assert report.losses["lone"].item() == pytest.approx(lone)
    assert report.loss.item() == pytest.approx((3 * one + lone) / 4)


def test_choice_is_the_likelihood_of_the_answer_among_its_alternatives():
    report = scripted(*ASKED, answers=[ONE, LONE], objective="choice")(torch.zeros(2, 3, 8, 8))
    one = -(math.log(0.25 / 0.75) + math.log(0.5 / 0.625)) / 2
    lone = -(math.log(0.5) + math.log(0.125)) / 2
    assert report.losses["one"].item() == pytest.approx(one)
    assert report.loss.item() == pytest.approx((3 * one + lone) / 4)


def test_choice_per_token_compares_means_over_tokens():
    report = scripted(*ASKED, answers=[ONE, LONE], objective="choice-per-token")(torch.zeros(2, 3, 8, 8))
    # The answer has two tokens, its alternative one: roots of 0.25 and 0.5 are the means' probabilities.
    shares = torch.tensor([0.5 / (0.5 + 0.5), math.sqrt(0.5) / (math.sqrt(0.5) + 0.125)])
    alone = torch.tensor([0.5 ** (1 / 3), 0.125 ** (1 / 3)])
    torch.testing.assert_close(report.probabilities["one"], shares)
    torch.testing.assert_close(report.probabilities["lone"], alone)
    torch.testing.assert_close(report.losses["one"], -shares.log().mean())
    torch.testing.assert_close(report.losses["lone"], -alone.log().mean())


def test_a_longer_answer_loses_by_choice_and_not_per_token():
    """All tokens of both answers are equally likely."""
    log_likelihood, tokens = torch.tensor([[3 * math.log(0.5), math.log(0.5)]]), torch.tensor([3, 1])
    found = {
        name: objective.log_probability(log_likelihood, tokens).exp().item()
        for name, objective in OBJECTIVES.items()
    }
    assert found == pytest.approx({"likelihood": 0.2, "choice": 0.2, "choice-per-token": 0.5})


def test_the_objectives_of_the_spec_are_those_of_the_table():
    assert get_args(LearnSpec.model_fields["objective"].annotation) == tuple(OBJECTIVES)


@pytest.mark.parametrize("objective", ["choice", "choice-per-token"])
def test_objectives_that_compare_need_alternatives(objective, folder, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "version: 1\nname: a\nprompts: {train: [a]}\nquestions: [{name: a, question: b, answer: c}]\n"
    )
    with pytest.raises(SpecError, match=f"alternatives: is missing.*since learn.objective is {objective}"):
        load_spec(path, [f"learn.objective={objective}"])


@pytest.mark.parametrize("objective", ["likelihood", "choice"])
def test_probability_is_a_share_with_alternatives_and_plain_without(objective):
    report = scripted(*ASKED, answers=[ONE, LONE], objective=objective)(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(report.probabilities["one"], torch.tensor([0.25 / 0.75, 0.5 / 0.625]))
    torch.testing.assert_close(report.probabilities["lone"], torch.tensor([0.5, 0.125]))


def test_probability_of_very_unlikely_answers():
    log_likelihood = torch.tensor([[-2000.0, -2001.0]])
    assert log_share(log_likelihood, torch.tensor([1, 1])).exp().item() == pytest.approx(
        1 / (1 + math.exp(-1))
    )


def test_wordings_are_drawn_uniformly_and_seeded():
    asked = (question("a", paraphrases=("b", "c")), question("d"), question("e", paraphrases=("f",)))

    def draws(seed):
        loss = scripted(*asked, answers=[LONE] * 3)
        rng = torch.Generator().manual_seed(seed)
        for _ in range(300):
            loss(torch.zeros(2, 3, 8, 8), rng)
        return loss.views[0].scorer.asked

    found = draws(0)
    assert found == draws(0)
    assert found != draws(1)
    first, second, third = (list(column) for column in zip(*found, strict=True))
    assert all(70 < first.count(wording) < 130 for wording in (0, 1, 2))
    assert set(second) == {3}
    assert all(120 < third.count(wording) < 180 for wording in (4, 5))


def test_main_wordings_without_a_generator():
    loss = scripted(question("a", paraphrases=("b",)), question("c"), answers=[LONE] * 2)
    loss(torch.zeros(2, 3, 8, 8))
    assert loss.views[0].scorer.asked == [[0, 2]]


def test_a_wording_is_asked_as_written(vlm, folder, images):
    spoken = loaded(folder, question(text="Is it night?", paraphrases=("What time is it?",)))
    loss = compile_loss(spoken, vlm, 64, 64)
    alone = [AnswerScorer(vlm, [text], [["Yes"]])(images) for text in ("Is it night?", "What time is it?")]
    expected = [-scores.log_likelihood[0].mean() for scores in alone]
    torch.testing.assert_close(loss(images).loss, expected[0])
    found = {round(loss(images, torch.Generator().manual_seed(seed)).loss.item(), 3) for seed in range(8)}
    assert found == {round(value.item(), 3) for value in expected}


def test_one_view_for_each_distinct_visual_prompt(vlm, folder):
    compiled = compile_loss(
        loaded(
            folder,
            question("bare"),
            question("line", "What is shown?", visual_prompt="here"),
            question("same-line", "Is the tree bare?", visual_prompt="there"),
            question("box", visual_prompt="box"),
            question("bare-too", "Is the lamp lit?"),
            visual_prompts={
                "here": RED_LINE,
                "there": LinePrompt(position=0.65),
                "box": BoxPrompt(left=0.1, top=0.1, right=0.9, bottom=0.9),
            },
        ),
        vlm,
        64,
        64,
    )
    names = [(view.name, [asked.name for asked in view.questions]) for view in compiled.views]
    assert names == [("none", ["bare", "bare-too"]), ("here", ["line", "same-line"]), ("box", ["box"])]


def test_questions_are_asked_about_their_own_view(vlm, folder, images):
    compiled = compile_loss(
        loaded(
            folder,
            question("bare"),
            question(
                "line",
                "Is the horizon at the red line?",
                alternatives=("No",),
                visual_prompt="line",
                weight=2,
            ),
            visual_prompts={"line": RED_LINE},
        ),
        vlm,
        64,
        64,
    )
    report = compiled(images)
    under = composite(images, draw_layer(RED_LINE, 64, 64, folder))
    bare = AnswerScorer(vlm, ["Is it night?"], [["Yes"]])(images).log_likelihood[0]
    line = AnswerScorer(vlm, ["Is the horizon at the red line?"], [["Yes", "No"]])(under).log_likelihood[0]
    torch.testing.assert_close(report.losses["bare"], -bare.mean().detach())
    torch.testing.assert_close(report.probabilities["line"], line.softmax(1)[:, 0].detach())
    expected = (-bare.mean() - 2 * line[:, 0].mean()) / 3
    torch.testing.assert_close(report.loss, expected)
    torch.testing.assert_close(
        gradient(report.loss, images), gradient(expected, images), rtol=1e-4, atol=1e-7
    )
    assert not report.losses["line"].requires_grad
    assert not report.probabilities["line"].requires_grad


def test_no_gradient_under_an_opaque_visual_prompt(vlm, folder, images):
    asked = question(visual_prompt="line")
    line = LinePrompt(position=0.5, thickness=0.25)
    loss = compile_loss(loaded(folder, asked, visual_prompts={"line": line}), vlm, 64, 64)
    found = gradient(loss(images).loss, images)
    assert (found[:, :, 24:40] == 0).all()
    assert (found[:, :, :24].abs().sum((1, 2, 3)) > 0).all()


def test_picture_beside_is_shown_and_not_laid_over(vlm, folder, images, tmp_path):
    Image.new("RGB", (30, 20), "blue").save(tmp_path / "painting.png")
    asked = question(text="Is this picture like the painting?", visual_prompt="painting")
    prompts = {"painting": ImagePrompt(path="painting.png", mode="beside")}
    compiled = LoadedSpec(loaded(folder, asked, visual_prompts=prompts).spec, tmp_path, "", {})
    report = compile_loss(compiled, vlm, 64, 64)(images)
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 20, 30)
    expected = AnswerScorer(vlm, [asked.question], [["Yes"]])(images, beside=blue).log_likelihood[0]
    torch.testing.assert_close(report.loss, -expected.mean())


def test_a_region_is_asked_about_alone(vlm, folder, images):
    right = RegionSpec(left=0.49)  # from column 31.36
    asked = question(visual_prompt="target", region=right), question("all", visual_prompt="target")
    criterion = compile_loss(loaded(folder, *asked, visual_prompts={"target": RED_LINE}), vlm, 64, 64)
    assert [view.window.size for view in criterion.views] == [(64, 33), (64, 64)]

    report = criterion(images)
    part = composite(images, draw_layer(RED_LINE, 64, 64, folder))[..., 31:]
    alone = AnswerScorer(vlm, ["Is it night?"], [["Yes"]])(part).log_likelihood[0][:, 0]
    torch.testing.assert_close(report.probabilities["q"], alone.exp())
    grad = gradient(alone.sum(), images)
    assert grad[..., :31].abs().max() == 0
    assert grad[..., 31:].abs().amax((0, 1, 2)).min() > 0
    alone_grad = gradient(
        compile_loss(loaded(folder, question(region=right)), vlm, 64, 64)(images).loss, images
    )
    assert alone_grad[..., :31].abs().max() == 0


def test_each_vlm_is_shown_pictures_at_its_own_scale(folder, images):
    """The scale is that of the VLM that is asked, not that of ``spec.vlm``."""
    asked = loaded(folder, question(visual_prompt="line"), visual_prompts={"line": RED_LINE})
    half = load_vlm(VlmSpec(model=str(folder), image_scale=0.5), torch.device("cpu"))
    report = compile_loss(asked, half, 64, 64)(images)
    small = functional.interpolate(
        composite(images, draw_layer(RED_LINE, 64, 64, folder)), (32, 32), mode="bilinear", antialias=True
    )
    expected = AnswerScorer(half, ["Is it night?"], [["Yes"]])(small).log_likelihood[0][:, 0]
    torch.testing.assert_close(report.probabilities["q"], expected.exp().detach())
    for scale, size in ((0.5, (32, 32)), (1.0, (64, 64))):
        (view,) = plan(scaled(asked, scale))
        assert view.size == size


def scaled(spec, scale):
    vlm = spec.spec.vlm.model_copy(update={"image_scale": scale})
    return replace(spec, spec=spec.spec.model_copy(update={"vlm": vlm}))


def test_a_region_of_a_few_pixels_is_refused():
    with pytest.raises(UserError, match=r"questions: q: region: 3x64 pixels of a 64x64 picture"):
        window(RegionSpec(left=0.95), 64, 64, "questions: q")


def test_jitter_needs_a_generator(vlm, folder, images):
    perturbed = compile_loss(loaded(folder, question(), jitter=JitterSpec(noise=0.1, shift=0.1)), vlm, 64, 64)
    plain = compile_loss(loaded(folder, question()), vlm, 64, 64)
    torch.testing.assert_close(perturbed(images).loss, plain(images).loss)
    seeded = [perturbed(images, torch.Generator().manual_seed(seed)).loss.item() for seed in (0, 0, 1)]
    assert seeded[0] == seeded[1] != seeded[2]
    assert seeded[0] != plain(images).loss.item()


def test_shift_moves_whole_pictures_and_repeats_their_border():
    rng = torch.Generator().manual_seed(0)
    ramp = torch.arange(20.0)[:, None] * 100 + torch.arange(30.0)
    pictures = ramp.expand(50, 3, 20, 30).clone().requires_grad_()
    shifted = jittered(pictures, JitterSpec(shift=0.1), rng)
    middle = shifted[:, 0, 10, 15] - ramp[10, 15]
    down, right = (middle / 100).round(), middle - 100 * (middle / 100).round()
    assert set(down.tolist()) == {-2, -1, 0, 1, 2}
    assert set(right.tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    for picture, y, x in zip(shifted, down, right, strict=True):
        rows = (torch.arange(20) + int(y)).clamp(0, 19)
        columns = (torch.arange(30) + int(x)).clamp(0, 29)
        assert (picture == ramp[rows][:, columns]).all()
    # Every pixel's gradient is how often it is seen.
    assert gradient(shifted.sum(), pictures).sum() == shifted.numel()


def test_a_visual_prompt_is_not_shifted_over_the_border():
    """It keeps its size, unless it lies at the border from the start."""
    line = draw_layer(LinePrompt(type="line", position=0.1, thickness=0.06), 64, 64, Path())
    room = Room.around(line)
    assert room == Room(rows=(-55, 4), columns=(-64, 64))
    seen = composite(torch.zeros(100, 3, 64, 64), line)
    shifted = jittered(seen, JitterSpec(shift=0.2), torch.Generator().manual_seed(0), room)
    assert shifted[:, 0].sum((1, 2)).tolist() == pytest.approx([seen[0, 0].sum().item()] * 100)
    first = (shifted[:, 0, :, 0] > 0).float().argmax(1)
    assert first.min() == 0
    assert first.max() > 12
    zoomed = jittered(seen, JitterSpec(zoom=0.3), torch.Generator().manual_seed(0), room)[:, 0]
    assert zoomed[:, 0].max() < 1, "some of the first row is above the line"
    assert jittered(seen, JitterSpec(zoom=0.3), torch.Generator().manual_seed(0))[:, 0, 0].max() == 1
    strip = draw_layer(PalettePrompt(type="palette", colors=["red"], edge="bottom", size=0.1), 64, 64, Path())
    assert Room.around(strip) == Room(rows=(-64, 58), columns=(-64, 64))
    assert Room.around(torch.zeros(4, 8, 8)) == Room((-8, 8), (-8, 8)), "nothing is seen of it"


def test_noise_has_its_spread_and_stays_within_black_and_white():
    rng = torch.Generator().manual_seed(0)
    noise = jittered(torch.full((4, 3, 64, 64), 0.5), JitterSpec(noise=0.05), rng) - 0.5
    assert noise.std().item() == pytest.approx(0.05, rel=0.05)
    noisy = jittered(torch.ones(1, 3, 64, 64), JitterSpec(noise=0.5), rng)
    assert 0 <= noisy.min() < noisy.max() == 1


def test_zoom_scales_around_a_point_inside_and_repeats_the_border():
    """A plane is resampled exactly: its slope tells the scale, and where it is unchanged the fixed point."""
    rng = torch.Generator().manual_seed(0)
    ramp = 0.5 + 0.01 * (torch.arange(30.0) - 14.5)
    pictures = ramp.expand(50, 3, 20, 30).clone().requires_grad_()
    zoomed = jittered(pictures, JitterSpec(zoom=0.1), rng)
    slopes = (zoomed[:, 0, 10, 20] - zoomed[:, 0, 10, 10]) / 0.1  # one over the scale
    assert 1 / 1.1 <= slopes.min() < 0.95
    assert 1.05 < slopes.max() <= 1 / 0.9
    assert torch.allclose(zoomed, zoomed[:, :1, :1], atol=1e-5)  # rows are alike, and stay so
    assert zoomed.min() >= ramp.min() - 1e-6
    assert zoomed.max() <= ramp.max() + 1e-6
    fixed = 14.5 + (zoomed[:, 0, 10, 14] + zoomed[:, 0, 10, 15] - 1) / 0.02 / (1 - slopes)
    assert -1 < fixed.min() < 10 < 20 < fixed.max() < 30
    assert gradient(zoomed.sum(), pictures).sum().item() == pytest.approx(zoomed.numel(), rel=1e-5)


def test_blur_is_a_gaussian_of_each_pictures_own_width():
    rng = torch.Generator().manual_seed(0)
    pictures = torch.zeros(20, 3, 21, 21)
    pictures[:, :, 10, 10] = 1
    blurred = jittered(pictures, JitterSpec(blur=1.5), rng)
    assert blurred.sum((2, 3)).flatten().tolist() == pytest.approx([1.0] * 60, abs=1e-5)
    across = blurred[:, 0].sum(1)  # a Gaussian in one direction
    spread = (across * (torch.arange(21) - 10.0) ** 2).sum(1).sqrt()
    assert spread.min() < 0.5 < 1 < spread.max() < 1.5
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))
    flat = jittered(torch.full((2, 3, 8, 8), 0.3), JitterSpec(blur=2.0), rng)
    torch.testing.assert_close(flat, torch.full((2, 3, 8, 8), 0.3))


def test_jitter_of_zero_changes_nothing_and_draws_nothing():
    rng, untouched = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 8, 8)
    assert jittered(pictures, JitterSpec(), rng) is pictures
    assert torch.equal(rng.get_state(), untouched.get_state())


def test_several_views_are_asked_in_one_batch_and_averaged(folder, vlm, images, monkeypatch):
    asked = []
    score = AnswerScorer.__call__

    def counted(self, pictures, *arguments):
        asked.append(len(pictures))
        return score(self, pictures, *arguments)

    monkeypatch.setattr(AnswerScorer, "__call__", counted)
    spec = loaded(folder, question(alternatives=("No",)), jitter=JitterSpec(views=2))
    same = compile_loss(spec, vlm, 64, 64)(images, torch.Generator())
    plain = compile_loss(loaded(folder, question(alternatives=("No",))), vlm, 64, 64)(images)
    assert asked == [6, 3]
    torch.testing.assert_close(same.loss, plain.loss)  # without any change, all views are alike
    torch.testing.assert_close(same.probabilities, plain.probabilities)
    torch.testing.assert_close(gradient(same.loss, images), gradient(plain.loss, images))


def test_plan_lists_views_and_questions_without_weights(folder, monkeypatch):
    spec = loaded(
        folder,
        question("night", alternatives=("No",)),
        question("shown", "What is shown?", answer="a tall tree", weight=2.0),
        question("line", "Is the horizon at the red line?", visual_prompt="line"),
        visual_prompts={"line": RED_LINE},
    )
    monkeypatch.setattr(
        "transformers.AutoModelForImageTextToText.from_pretrained", lambda *a, **k: pytest.fail("weights")
    )
    bare, line = plan(spec)
    assert (bare.view, bare.size, bare.mode) == ("none", (64, 64), "cache")
    night, shown = bare.questions
    assert (night.name, night.question, night.answer, night.weight) == ("night", "Is it night?", "Yes", 1.0)
    # "Is it night ?" and "What is shown ?" have as many tokens, the answers one and three.
    assert shown.suffix_tokens - night.suffix_tokens == 2
    assert (line.view, line.questions[0].name) == ("line", "line")
    assert line.prefix_tokens > bare.prefix_tokens  # one question shares all of itself
