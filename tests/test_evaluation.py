"""Evaluating: what is drawn, asked and measured, and how the results are put together."""

import json
import math
import weakref

import pytest
import torch
from scenes import make_scene
from small_generator import load, with_adapter
from small_judges import make_features
from small_vlm import make_vlm
from spec_files import SHORTEST, load_text

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.drawing import FIRST_HELD_OUT, draw_pictures, held_out_seeds
from dualproc_cli.evaluation import compare_with_base, evaluate_bundle
from dualproc_cli.evaluation.ask import ask
from dualproc_cli.evaluation.comparison import Comparison, Figures
from dualproc_cli.evaluation.perturb import lossy
from dualproc_cli.evaluation.probes import compile_other_wordings, corrected
from dualproc_cli.evaluation.probing import Probing
from dualproc_cli.evaluation.tally import Tally
from dualproc_cli.learning import learn
from dualproc_cli.measures import Judgement, Measure, other_wordings
from dualproc_cli.measures.pretrained import load_pretrained
from dualproc_cli.memory import MemoryPlan
from dualproc_cli.miniature.world.render import render
from dualproc_cli.pictures import eight_bits
from dualproc_cli.spec import (
    ControlSpec,
    EvaluateSpec,
    LearnSpec,
    PromptsSpec,
    Question,
    SpecError,
    load_spec,
    opposite_answer,
)

CPU = torch.device("cpu")
TRAIN, HELD_OUT = ("a house", "a tree"), ("a ball",)


class Brightness(Measure):
    """The mean of the pixels. One half or more is a success; pictures of trees are unjudged."""

    name, unit, model, revision, licence = "brightness", "mean", "meter", "1", "MIT"

    def __init__(self, role="goal"):
        self.role = role
        self.seen = []

    def judge(self, evidence):
        self.seen.append(evidence)
        value = evidence.images.mean((1, 2, 3))
        if evidence.prompts[0] == "a tree":
            value = evidence.unjudged
        if self.role == "variety":
            return Judgement(value[:, None])
        success = torch.where(value.isnan(), value, (value >= 0.5).float())
        return Judgement(value, success if self.role == "goal" else None)


class Bright(CompositeLoss):
    """A loss whose P(answer) is the brightness of the picture."""

    def __init__(self):
        super().__init__([], LearnSpec())

    def __call__(self, images, rng=None):
        assert len(images) <= 16
        return LossReport(images.sum(), {}, {"bright": images.mean((1, 2, 3))})


@pytest.fixture(scope="module")
def generator():
    return with_adapter(load(steps=1))


@pytest.fixture(scope="module")
def pictures(generator):
    """What should be judged: prompt -> base and learned pictures at three held-out seeds, of 8 bits."""
    found = {}
    for prompt in (*TRAIN, *HELD_OUT):
        with generator.without_adapter():
            base = generator.render([prompt] * 3, held_out_seeds(3))
        learned = generator.render([prompt] * 3, held_out_seeds(3))
        found[prompt] = tuple(eight_bits(images) / 255 for images in (base, learned))
    return found


def control(**evaluate):
    return ControlSpec(
        name="c",
        prompts=PromptsSpec(train=TRAIN, held_out=HELD_OUT),
        questions=(Question(name="bright", question="Is it bright?", answer="Yes"),),
        evaluate=EvaluateSpec(**evaluate),
    )


def mean(images):
    return pytest.approx(images.mean().item(), abs=1e-6)


def test_pictures_are_compared_with_the_base_of_the_same_seeds(generator, pictures):
    measure, calls = Brightness(), []
    result = compare_with_base(
        control(seeds=3),
        generator,
        Bright(),
        [measure],
        seeds=held_out_seeds(3),
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(done, 18) for done in (3, 6, 9, 12, 15, 18)]
    assert result.seeds == 3
    base, learned = (torch.cat([pictures[prompt][side] for prompt in TRAIN]) for side in (0, 1))
    held_out, learned_held_out = pictures["a ball"]
    assert result.questions == {
        "bright": Figures(mean(base), mean(learned), mean(held_out), mean(learned_held_out))
    }
    assert result.second_vlm == {}
    for index, evidence in enumerate(measure.seen):
        prompt, side = (*TRAIN, *HELD_OUT)[index // 2], index % 2
        assert evidence.prompts == [prompt] * 3
        assert torch.allclose(evidence.base, pictures[prompt][0], atol=1e-6)
        assert torch.allclose(evidence.images, pictures[prompt][side], atol=1e-6)
    report = result.measures["brightness"]
    house = pictures["a house"]
    assert report.value == Figures(mean(house[0]), mean(house[1]), mean(held_out), mean(learned_held_out))
    assert report.judged == Figures(0.5, 0.5, 1.0, 1.0)
    bright = [(images.mean((1, 2, 3)) >= 0.5).float() for images in (*house, held_out, learned_held_out)]
    assert report.success == Figures(*map(mean, bright))
    assert (report.source.unit, report.source.model, report.source.licence) == ("mean", "meter", "MIT")


def test_artefacts_and_varieties_are_set_against_the_base(generator, pictures):
    measures = [Brightness("artefact"), Brightness("variety")]
    result = compare_with_base(control(), generator, Bright(), measures, seeds=held_out_seeds(3))
    base, learned = (images.mean((1, 2, 3)) for images in pictures["a house"])
    artefact, variety = result.artefacts["brightness"], result.spread["brightness"]
    assert artefact.ratio == pytest.approx((learned.mean() / base.mean()).item(), rel=1e-4)
    assert variety.base == pytest.approx(base.std().item(), rel=1e-3)
    assert variety.learned == pytest.approx(learned.std().item(), rel=1e-3)
    assert variety.ratio == pytest.approx((learned.std() / base.std()).item(), rel=1e-3)
    assert result.measures == {}


def test_second_vlm_is_asked_too(generator):
    class Dark(Bright):
        def __call__(self, images, rng=None):
            return LossReport(images.sum(), {}, {"bright": 1 - images.mean((1, 2, 3))})

    result = compare_with_base(control(), generator, Bright(), [], second=Dark(), seeds=held_out_seeds(2))
    one, two = result.questions["bright"].values(), result.second_vlm["bright"].values()
    assert [1 - value for value in one] == pytest.approx(two)


def test_many_pictures_are_asked_about_in_batches(generator):
    result = compare_with_base(control(), generator, Bright(), [], seeds=held_out_seeds(17))
    assert result.seeds == 17


def test_drawing_in_batches_changes_nothing(generator):
    seeds = [3, FIRST_HELD_OUT, 7]
    together = torch.stack(list(draw_pictures(generator, "a house", seeds, batch_size=3)))
    parts = torch.stack(list(draw_pictures(generator, "a house", seeds, batch_size=2)))
    assert together.shape == (3, 3, 64, 64)
    assert not together.requires_grad
    assert torch.allclose(together, parts, atol=1e-5)
    assert torch.equal(together, generator.render(["a house"] * 3, seeds))


# Probes


def yes_no(text, **changes):
    return Question(name="at", question=text, answer="Yes", alternatives=("No",), **changes)


def test_wordings_that_are_not_trained_on(tmp_path):
    spec = load_text(tmp_path, SHORTEST).spec
    question = yes_no(
        "Is the horizon at  the red line?",
        paraphrases=("Is the red line at the horizon?",),
        held_out_paraphrases=("Is the horizon there?", "Does the horizon lie on the red line?"),
    )
    held_out, opposite = other_wordings(spec, question)
    assert held_out == ("Is the horizon there?", "Does the horizon lie on the red line?")
    assert opposite == ("Is the horizon away from the red line?", "Is the red line away from the horizon?")
    assert other_wordings(spec, yes_no("Is it nice?")) == ((), ())
    open_question = Question(name="what", question="What is in the picture?", answer="a house")
    assert other_wordings(spec, open_question) == (("What does the picture show?",), ())
    another = spec.model_copy(update={"vlm": spec.vlm.model_copy(update={"model": "org/vlm"})})
    assert other_wordings(another, question) == (question.held_out_paraphrases, ())
    far = question.model_copy(update={"opposites": ("Is the horizon far from the line?",)})
    assert other_wordings(another, far) == (question.held_out_paraphrases, far.opposites)
    assert other_wordings(spec, far) == (held_out, (*far.opposites, *opposite))


@pytest.mark.parametrize(
    ("answer", "alternatives", "opposite"),
    [("Yes", ("No",), "No"), ("no.", (), "Yes"), ("night", ("day", "noon"), "day"), ("night", (), None)],
)
def test_the_answer_to_the_opposite(answer, alternatives, opposite):
    assert opposite_answer(answer, alternatives) == opposite


def test_other_wordings_are_asked_in_place_of_the_questions(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "dualproc_cli.evaluation.probes.compile_loss", lambda loaded, *_: compiled.append(loaded.spec)
    )
    loaded = load_text(tmp_path, SHORTEST, "learn.keep.clean=0.5")
    found = compile_other_wordings(loaded, None, 64, 64)
    asked = compiled[0].asked
    assert [one.answer for one in asked] == ["Yes"] * 2 + ["No"] * 2  # nothing asks whether it is clean
    assert [one.alternatives for one in asked[2:]] == [("Yes",)] * 2
    assert {one.visual_prompt for one in asked} == {"target"}
    kinds = [found.sources[one.name] for one in asked]
    assert kinds == [("held-out wordings", "at-the-line")] * 2 + [("opposite wordings", "at-the-line")] * 2
    nothing = load_text(tmp_path, SHORTEST.replace("Is the horizon at the red line?", "Is it nice?"))
    assert compile_other_wordings(nothing, None, 64, 64) is None


def test_what_a_vlm_says_of_a_blank_picture_is_no_evidence():
    found = corrected({"q": torch.tensor([0.5, 0.9, 0.99, 1.0])}, {"q": 0.9})["q"]
    assert found.tolist() == pytest.approx([0.1, 0.5, 11 / 12, 1.0], abs=1e-4)
    denied = corrected({"q": torch.tensor([0.3, 0.9])}, {"q": 0.01})["q"]
    assert denied.tolist() == pytest.approx([0.3, 0.9])


class Contrast(CompositeLoss):
    """P(answer) is high if the pixels of a picture vary, or for pictures brighter than a blank one."""

    def __init__(self):
        super().__init__([], LearnSpec())

    def __call__(self, images, rng=None):
        sure = (images.std((1, 2, 3)) > 0.3).float()
        return LossReport(images.sum(), {}, {"bright": 0.1 + 0.8 * sure})


class Fixed:
    """Other wordings of which one is not believed in."""

    def ask(self, images):
        return {"held-out wordings": {"bright": torch.full((len(images),), 0.2)}}


def test_an_answer_that_a_fine_pattern_gave_does_not_stand():
    pattern = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(2, 3, 64, 64)
    probing = Probing(control(), full=True)
    probing.add("learned", pattern, ask(Contrast(), pattern), Contrast())
    stands = {name: report.stands.learned for name, report in probing.reports().items()}
    assert stands == {
        "perturbed": 0, "blank picture": 1, "shifted": 1, "noisy": 1, "blurred": 0, "resized": 0,
        "JPEG 75": stands["JPEG 75"], "half size": 0,
    }  # fmt: skip
    assert not torch.cat(probing.steady["learned"]).any()
    stripes = (torch.arange(64) // 16).remainder(2).float().expand(2, 3, 64, 64)
    for others, steady in ((None, True), (Fixed(), False)):
        probing = Probing(control())
        probing.add("learned", stripes, ask(Contrast(), stripes), Contrast(), others)
        assert torch.cat(probing.steady["learned"]).tolist() == [steady] * 2


def test_pictures_as_sharing_leaves_them():
    images = render(make_scene()).images
    found = lossy(images)
    assert list(found) == ["JPEG 75", "half size"]
    for version in found.values():
        assert version.shape == images.shape
        assert 0 < (version - images).abs().mean() < 0.05


# Putting it together


def reported(measure, **found):
    tally, result = Tally(measure), Comparison(2)
    for column, judgements in found.items():
        for judgement in judgements:
            tally.add(column, judgement)
    tally.report(result)
    return result


def properties(*values):
    return Judgement(torch.tensor(values)[:, None])


def test_spread_is_the_root_mean_square_over_prompts():
    varied, collapsed = properties(0.0, 1.0, 2.0), properties(1.0, 1.0, 1.0)
    found = reported(Brightness("variety"), base=[varied, varied], learned=[varied, collapsed])
    report = found.spread["brightness"]
    assert report.base == pytest.approx(1)
    assert report.ratio == pytest.approx(math.sqrt(0.5))


def test_what_the_base_does_not_vary_cannot_be_kept():
    varied, collapsed = properties(0.0, 1.0, 2.0), properties(1.0, 1.0, 1.0)
    report = reported(Brightness("variety"), base=[collapsed], learned=[varied]).spread["brightness"]
    assert (report.base, report.ratio) == (0, None)


def test_unjudged_pictures_do_not_count():
    nan = math.nan
    goal = Judgement(torch.tensor([1.0, nan, 3.0]), torch.tensor([1.0, nan, 0.0]))
    none = Judgement(torch.tensor([nan]), torch.tensor([nan]))
    report = reported(Brightness(), base=[goal], learned=[none]).measures["brightness"]
    assert report.value == Figures(2, None)
    assert report.success == Figures(0.5, None)
    assert report.judged == Figures(pytest.approx(2 / 3), 0)
    seen = reported(Brightness("variety"), base=[properties(0.0, nan, 2.0)], learned=[properties(nan, 1.0)])
    assert seen.spread["brightness"].base == pytest.approx(math.sqrt(2))
    assert seen.spread["brightness"].learned is None


# Whole bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, small_spec):
    """A bundle of the small control, which names a second VLM and measures of any picture."""
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate = {
        "seeds": 2,
        "vlm": {"model": str(make_vlm(folder / "second", seed=7)), "image_scale": 0.5},
        "measures": [
            {"type": "distance", "name": "near", "at_most": 0.5},
            {"type": "distance", "name": "drift", "model": str(make_features(folder / "features"))},
        ],
    }
    path = small_spec(folder, {"learn": {"steps": 2, "batch_size": 1}})
    changes = [f"evaluate={json.dumps(evaluate)}"]
    learn(load_spec(path, changes), folder / "out", device=CPU)
    return Bundle.open(folder / "out")


def test_a_bundle_is_evaluated_by_all_it_names(bundle):
    result = evaluate_bundle(bundle, CPU)
    assert result.seeds == 2
    assert result.questions.keys() == result.second_vlm.keys() == {"at-the-line", "night"}
    assert result.questions != result.second_vlm
    assert result.measures["near"].success == Figures(1, 1, 1, 1)
    assert result.measures["distance"].value.base == 0
    assert 0 < result.measures["distance"].value.learned < 0.5
    drift = result.measures["drift"]
    assert drift.value.base == pytest.approx(0, abs=1e-6)
    assert drift.value.learned > 0
    assert drift.judged == Figures(1, 1, 1, 1)
    assert (drift.source.model, drift.source.licence) == (
        bundle.spec.evaluate.measures[1].model,
        "apache-2.0",
    )
    assert list(result.artefacts) == ["high-frequency", "clipping", "saturation", "grid"]
    assert result.spread["diversity"].base > 0
    shown = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert shown["measures"]["near"]["success"]["learned_held_out"] == 1
    assert shown["artefacts"]["grid"]["source"] == {
        "unit": "x spectrum", "model": None, "revision": None, "licence": None
    }  # fmt: skip


def test_the_second_vlm_sees_its_own_size(bundle, monkeypatch):
    sizes = []
    ask = CompositeLoss.__call__

    def asked(self, images, rng=None):
        sizes.append({view.size for view in self.views})
        return ask(self, images, rng)

    monkeypatch.setattr(CompositeLoss, "__call__", asked)
    evaluate_bundle(bundle, CPU, seeds=2)
    # The first VLM is asked about each picture and its four perturbed versions, and about one blank picture;
    # the second about the picture.
    assert sizes == [{(64, 64)}] * (5 * 6 + 1) + [{(32, 32)}] * 6


@pytest.mark.parametrize("full", [False, True])
def test_pictures_are_drawn_once_and_one_model_is_in_memory_at_a_time(bundle, monkeypatch, full):
    loads, models = [], []

    def watched(load, model_of):
        def loading(*args):
            gone = all(model() is None for model in models)
            found = load(*args)
            models.append(weakref.ref(model_of(found)))
            loads.append(gone)
            return found

        return loading

    monkeypatch.setattr(
        MemoryPlan, "load_generator", watched(MemoryPlan.load_generator, lambda g: g.denoiser)
    )
    monkeypatch.setattr(MemoryPlan, "load_vlm", watched(MemoryPlan.load_vlm, lambda vlm: vlm.model))
    measure = "dualproc_cli.measures.pretrained.load_pretrained"
    monkeypatch.setattr(measure, watched(load_pretrained, lambda found: found.model))
    drawn = []
    found = evaluate_bundle(
        bundle, CPU, seeds=2, progress=lambda done, total: drawn.append((done, total)), full=full
    )
    assert loads == [True] * 4
    assert [one.scale for one in found.strengths] == [0, 0.25, 0.5, 0.75, 1, 1.25] * full
    assert drawn[-1] == (12, 12)
    assert all(model() is None for model in models)


def test_measures_that_refuse_are_told_before_anything_is_loaded(small_spec, tmp_path, monkeypatch):
    path = small_spec(tmp_path)
    monkeypatch.setattr("dualproc_cli.learning.control.plan_learning", None)
    with pytest.raises(SpecError, match=r"evaluate.measures.0: horizon reads the miniature's pictures, not"):
        learn(load_spec(path, ["evaluate.measures=[horizon]"]), tmp_path / "out", device=CPU)
    assert not (tmp_path / "out").exists()
