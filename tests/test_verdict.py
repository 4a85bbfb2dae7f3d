"""Right, clean, and the verdict that follows from them."""

import dataclasses
import math

import pytest
import torch
from scenes import make_scene
from small_generator import load, with_adapter
from spec_files import SHORTEST, load_text

from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.drawing import held_out_seeds, validation_seeds
from dualproc_cli.evaluation import Comparison, Referee, verdict_of
from dualproc_cli.evaluation.comparison import Figures, ProbeReport, Source, SpreadReport
from dualproc_cli.evaluation.perturb import perturbed
from dualproc_cli.evaluation.right_and_clean import Pictures, right_by_measures, unjudged_questions
from dualproc_cli.measures import Judgement, automatic_measures, clean_measures, measures_of
from dualproc_cli.measures.clean import CleanRange
from dualproc_cli.miniature.world.render import render
from dualproc_cli.spec import ControlSpec, LearnSpec, PromptsSpec, Question

HIGH, TWO = torch.tensor([False]), torch.tensor([True])


# Clean


def test_the_limit_of_one_statistic_is_the_quantile_of_the_base():
    base = torch.arange(101.0)[:, None]
    found = CleanRange.of(base, HIGH)
    assert found.holds(torch.tensor([[-1000.0], [95.0], [95.5], [math.nan]])).tolist() == [
        True, True, False, False
    ]  # fmt: skip
    assert CleanRange.of(base, TWO).holds(torch.tensor([[2.0], [0.0]])).tolist() == [True, False]


def test_95_percent_of_the_base_are_clean_jointly():
    base = torch.rand(400, 5, generator=torch.Generator().manual_seed(0)) ** 3
    found = CleanRange.of(base, torch.tensor([True, False, True, False, False]))
    assert found.holds(base).float().mean().item() == pytest.approx(0.95, abs=0.005)


def test_a_trace_of_what_the_base_never_has_is_clean():
    found = CleanRange.of(torch.zeros(8, 1), HIGH)
    assert found.holds(torch.tensor([[0.0], [0.5]])).tolist() == [True, False]
    assert not CleanRange.of(torch.full((3, 1), math.nan), HIGH).holds(torch.zeros(2, 1)).any()


def test_what_decides_whether_pictures_are_clean(tmp_path):
    miniature = load_text(tmp_path, SHORTEST).spec
    assert [measure.name for measure in clean_measures(miniature)] == ["residual"]
    other = miniature.model_copy(
        update={"generator": miniature.generator.model_copy(update={"model": "org/other"})}
    )
    assert [measure.name for measure in clean_measures(other)] == ["high-frequency", "clipping", "grid"]


# Right


def test_right_means_that_all_goals_are_reached():
    nan = math.nan
    one, two = torch.tensor([1.0, 1, 0, nan]), torch.tensor([1.0, 0, 1, 1])
    none = Judgement(torch.zeros(4))
    found = right_by_measures([Judgement(one, one), none, Judgement(two, two)])
    assert found.tolist() == [True, False, False, False]
    assert right_by_measures([none]) is None


def test_shares():
    pictures = Pictures(right=[torch.tensor([True, False]), torch.tensor([True])])
    pictures.statistics = [torch.tensor([[0.0], [0.0]]), torch.tensor([[9.0]])]
    shares = pictures.shares(CleanRange.of(torch.zeros(2, 1), HIGH))
    assert (shares.right, shares.clean, shares.right_and_clean) == pytest.approx((2 / 3, 2 / 3, 1 / 3))
    pictures.right[1] = None
    assert pictures.shares(CleanRange.of(torch.zeros(2, 1), HIGH)).right is None


def test_a_short_spec_for_the_miniature_gets_its_measures(tmp_path):
    spec = load_text(tmp_path, SHORTEST).spec
    assert automatic_measures(spec) == ("horizon", "subject")
    assert [measure.name for measure in measures_of(spec)][:2] == ["horizon", "subject"]
    assert unjudged_questions(spec, measures_of(spec)) == ()
    named = load_text(tmp_path, SHORTEST, "evaluate.measures=[subject]").spec
    assert automatic_measures(named) == ()
    assert unjudged_questions(named, measures_of(named)) == tuple(q.name for q in spec.questions)


# Perturbations and the referee


def test_perturbed_pictures_are_nearly_the_same_and_the_same_each_time():
    images = render(make_scene()).images
    found = perturbed(images)
    again = perturbed(images)
    for name, version in found.items():
        assert torch.equal(version, again[name])
        assert version.shape == images.shape
        assert 0 < (version - images).abs().mean() < 0.05
    assert torch.equal(found["shifted"][..., 1:, 1:], images[..., :-1, :-1])


class Bright(CompositeLoss):
    """A loss whose P(answer) is 1 for pictures that are brighter than a threshold, else 0."""

    def __init__(self, threshold):
        super().__init__([], LearnSpec())
        self.threshold = threshold

    def __call__(self, images, rng=None):
        bright = images.mean((1, 2, 3)) > self.threshold
        return LossReport(images.sum(), {}, {"bright": bright.float()})


def test_referee_draws_the_base_once_and_judges_each_state(monkeypatch):
    generator = with_adapter(load(steps=1))
    spec = ControlSpec(
        name="c",
        prompts=PromptsSpec(train=("a house",)),
        questions=(Question(name="bright", question="Is it bright?", answer="Yes"),),
    )
    seeds = validation_seeds(4)
    assert not set(seeds) & set(held_out_seeds(100_000))
    referee = Referee(spec, generator, spec.prompts.train, seeds, Bright(0.0))
    assert (referee.base.right, referee.base.clean) == (1.0, 0.75)
    with generator.without_adapter():
        assert referee.judge(generator) == referee.base
    monkeypatch.setattr(generator, "without_adapter", None)  # the base is not drawn again
    assert referee.judge(generator).right == 1.0
    monkeypatch.undo()
    assert Referee(spec, generator, ("a house",), seeds, Bright(1.0)).judge(generator).right_and_clean == 0


# The verdict

SOURCE = Source("", None, None, None)


def spread(ratio, fixed=False):
    return SpreadReport(1.0, ratio, ratio, fixed, SOURCE)


def found(right=0.9, clean=0.9, both=0.85, base=0.1, answered=0.9, steady=0.9, *, unjudged=(), **ratios):
    known = right is not None
    return Comparison(
        seeds=8,
        right=Figures(0, 0, base, right) if known else None,
        clean=Figures(0.95, 0, 0.95, clean),
        right_and_clean=Figures(0, 0, base, both) if known else None,
        right_by=("measures",) if known else (),
        unjudged=unjudged if known else ("q",),
        answered=Figures(0, 0, 0, answered),
        steady=Figures(0, 0, 0, steady),
        spread={"diversity": spread(0.7), "horizon": spread(0.1, fixed=True), "place": spread(0.9)}
        | {name: spread(ratio) for name, ratio in ratios.items()},
    )


@pytest.mark.parametrize(
    ("comparison", "name", "reason"),
    [
        (found(), "learned", "85% right and clean, at least 80%, the base's 10%"),
        (found(both=0.3), "learned, with artefacts",
         "90% right, at least 80%, but 30% right and clean, less than 80%, the base's 10%"),
        (found(base=0.85, both=0.85), "not learned",  # there was nothing to learn
         "90% right, and of the base's own pictures 85%: less than 10% were gained"),
        (found(right=0.5, both=0.5), "fooled",
         "the VLM that was trained against answers as expected for 90%, but 50% are right, at least 30% "
         "fewer"),
        (found(right=0.7, both=0.7), "not learned", "70% right, less than 80%"),
        (found(right=0.1, both=0.1, answered=0.2), "not learned", None),
        (found(diversity=0.2), "collapsed", "0.20 of the spread of the pixels is kept, less than 0.35"),
        (found(place=0.2), "collapsed",
         "0.20 of the spread of what the control need not change is kept, less than 0.50"),
        (found(place=0.2, size=0.9, sky=0.9), "learned", None),  # most of it is kept
        # Nothing independent: what the VLM says of perturbed pictures decides.
        (found(right=None, clean=0.9), "learned",
         "90% right and clean, at least 80%; only the VLM that was trained against judges q"),
        (found(right=None, clean=0.5), "learned, with artefacts", None),
        (found(right=None, steady=0.3), "fooled", None),
        # A measure that judges another thing does not make what the VLM alone says true.
        (found(right=1.0, both=0.95, answered=1.0, steady=0.2, unjudged=("q",)), "fooled", None),
        (found(right=1.0, both=0.95, answered=0.1, steady=0.1, unjudged=("q",)), "not learned", None),
    ],
)  # fmt: skip
def test_verdict(comparison, name, reason):
    verdict = verdict_of(comparison)
    assert verdict.name == name
    assert reason is None or verdict.reason == reason
    assert verdict.as_json()["figures"]["pixel_spread_kept"] == comparison.spread["diversity"].ratio


def test_the_weakest_witness_is_named():
    probes = {
        name: ProbeReport(Figures(learned_held_out=share), {})
        for name, share in {"perturbed": 0.7, "held-out wordings": 0.2, "half size": 0.0}.items()
    }
    alone = dataclasses.replace(found(right=None, steady=0.1), probes=probes)
    assert "90%, but 10% in wordings that were not learned on, at least" in verdict_of(alone).reason
    assert verdict_of(alone).figures["held-out wordings"] == 0.2
    judged = dataclasses.replace(found(right=0.5, both=0.5), probes=probes)
    assert "but 50% are right" in verdict_of(judged).reason


def test_what_is_answered_as_expected_anyway_was_not_learned():
    biased = dataclasses.replace(found(right=None), steady=Figures(0, 0, 0.9, 0.95))
    assert verdict_of(biased).name == "not learned"


def test_without_held_out_prompts_the_training_prompts_decide():
    comparison = Comparison(8, Figures(0.1, 0.9), Figures(0.95, 0.9), Figures(0.1, 0.85), ("measures",))
    assert verdict_of(comparison).name == "learned"
