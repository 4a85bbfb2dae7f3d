"""Pictures between two scenes: what they show, and which answers about them are true."""

import pytest
import torch
from scenes import make_scene
from test_miniature_questions import BOX, LINE, overlay

from dualproc_cli.miniature.training.blends import CORRUPTED, Blends, sample_blends
from dualproc_cli.miniature.world.questions import MAX_LOG_ODDS, SURE
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY, sample_scenes


def between(first, second, share, max_log_odds=MAX_LOG_ODDS):
    """Return a picture that shows ``share`` of one scene and the rest of another."""
    a, b = render(first), render(second)
    images = torch.lerp(b.images, a.images, share)
    none = torch.zeros(1)
    return Blends(images, first, a, second, b, torch.tensor([share]), torch.tensor([max_log_odds]), none)


def said(blend, kind, laid_over):
    margin = blend.margins(laid_over)[kind]
    return margin.yes.item() > 0, margin.no.item() > 0


nobody = make_scene()
nobody.kind = torch.full_like(nobody.kind, NOBODY)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, (True, False)), (0.9, (True, False)), (0.6, (False, False)), (0.1, (False, False))],
)
def test_a_subject_that_fades_is_not_there(share, expected):
    fading = between(make_scene(), nobody, share)
    assert said(fading, "inside house", overlay(BOX)) == expected
    assert said(fading, "attribute house", overlay()) == (False, share > 0.8), "the window is dark"


def test_a_subject_in_two_places_is_in_neither():
    inside, outside = make_scene(), make_scene(x=(8.0, 0.0))
    assert said(between(inside, outside, 1.0), "inside house", overlay(BOX)) == (True, False)
    assert said(between(inside, outside, 0.5), "inside house", overlay(BOX)) == (False, False)
    assert said(between(inside, outside, 0.0), "inside house", overlay(BOX)) == (False, True)


def test_what_both_scenes_share_stays_certain():
    fading = between(make_scene(), nobody, 0.5)
    at_line = fading.margins(overlay(LINE))["horizon"]
    assert at_line.yes.item() == pytest.approx(SURE)
    assert at_line.no.item() == pytest.approx(-SURE)


def test_every_answer_about_a_corrupted_picture_is_no():
    corrupted = between(make_scene(), make_scene(), 1.0, max_log_odds=-1.0)
    assert said(corrupted, "horizon", overlay(LINE)) == (False, False)
    assert said(corrupted, "inside house", overlay(BOX)) == (False, False)
    assert not corrupted.shows_one_scene


def test_a_corrupted_picture_is_not_clean_and_shows_nothing():
    rng = torch.Generator().manual_seed(0)
    scene = make_scene()[torch.zeros(40, dtype=torch.long)]
    rendering = render(scene)
    whole = Blends.from_one_scene(rendering.images, scene, rendering, torch.zeros(40))
    spoiled = whole.corrupted(rng)
    margins = spoiled.margins(overlay(LINE)[torch.zeros(40, dtype=torch.long)])
    badly = spoiled.artefacts > CORRUPTED
    assert badly.sum() > 5
    assert (margins["horizon"].yes[badly] < 0).all()
    assert (margins["clean"].no[badly] > 0).all()
    assert torch.equal(spoiled.is_unclear & badly, badly)
    noisy = whole.disturbed(torch.full((40,), 0.2))
    assert noisy.shows_one_scene.all()
    assert (noisy.margins(overlay(LINE)[torch.zeros(40, dtype=torch.long)])["clean"].yes < 0).all()


def test_blends_lie_between_their_scenes():
    drawn = sample_blends(200, torch.Generator().manual_seed(0))
    assert drawn.images.shape == (200, 3, 64, 64)
    assert not drawn.shows_one_scene.any()
    assert 0.4 < drawn.first_share.mean() < 0.6
    first = (drawn.images - drawn.first_rendering.images).abs().mean((1, 2, 3))
    second = (drawn.images - drawn.second_rendering.images).abs().mean((1, 2, 3))
    apart = (drawn.first_rendering.images - drawn.second_rendering.images).abs().mean((1, 2, 3))
    assert (first <= apart + 0.02).all(), "between the two, but for patches"
    differs = apart > 0.02
    nearer = (first < second) == (drawn.first_share > 0.5)
    assert nearer[differs & ((drawn.first_share - 0.5).abs() > 0.15)].float().mean() > 0.9
    margins = drawn.margins(overlay(BOX)[torch.zeros(200, dtype=torch.long)])
    assert all(
        m.yes.abs().max() <= MAX_LOG_ODDS and m.no.abs().max() <= MAX_LOG_ODDS for m in margins.values()
    )


def test_batches():
    scene = sample_scenes(4, torch.Generator().manual_seed(1))
    rendering = render(scene)
    one = Blends.from_one_scene(rendering.images, scene, rendering, torch.zeros(4))
    assert one.shows_one_scene.all()
    both = Blends.concatenate([one[:1], one[torch.tensor([3])]])
    assert torch.equal(both.images, rendering.images[[0, 3]])
    assert torch.equal(both.first_rendering.ink, rendering.ink[[0, 3]])
