"""Pictures between two scenes: what shows in them, and what may still be said of them."""

import pytest
import torch
from scenes import make_scene
from test_miniature_questions import BOX, LINE, overlay

from dualproc_cli.miniature.training.blends import Blends, blended_pictures
from dualproc_cli.miniature.world.questions import FARTHEST, SURE
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY, sample_scenes


def between(first, second, share, most=FARTHEST):
    """A picture that shows ``share`` of one scene and the rest of another."""
    a, b = render(first), render(second)
    images = torch.lerp(b.images, a.images, share)
    return Blends(images, first, a, second, b, torch.tensor([share]), torch.tensor([most]))


def said(exposure, kind, laid_over):
    margin = exposure.margins(laid_over)[kind]
    return margin.yes.item() > 0, margin.no.item() > 0


nobody = make_scene()
nobody.kind = torch.full_like(nobody.kind, NOBODY)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, (True, False)), (0.9, (True, False)), (0.6, (False, False)), (0.1, (False, False))],
)
def test_a_subject_that_fades_is_nowhere(share, expected):
    fading = between(make_scene(), nobody, share)
    assert said(fading, "inside house", overlay(BOX)) == expected
    assert said(fading, "attribute house", overlay()) == (False, share > 0.8), "the window is dark"


def test_a_subject_in_two_places_is_in_neither():
    inside, outside = make_scene(), make_scene(x=(8.0, 0.0))
    assert said(between(inside, outside, 1.0), "inside house", overlay(BOX)) == (True, False)
    assert said(between(inside, outside, 0.5), "inside house", overlay(BOX)) == (False, False)
    assert said(between(inside, outside, 0.0), "inside house", overlay(BOX)) == (False, True)


def test_what_does_not_differ_is_as_sure_as_ever():
    fading = between(make_scene(), nobody, 0.5)
    at_line = fading.margins(overlay(LINE))["horizon"]
    assert at_line.yes.item() == pytest.approx(SURE)
    assert at_line.no.item() == pytest.approx(-SURE)


def test_of_a_wreck_nothing_is_true():
    corruption = between(make_scene(), make_scene(), 1.0, most=-1.0)
    assert said(corruption, "horizon", overlay(LINE)) == (False, False)
    assert said(corruption, "inside house", overlay(BOX)) == (False, False)
    assert not corruption.single


def test_double_exposures():
    drawn = blended_pictures(200, torch.Generator().manual_seed(0))
    assert drawn.images.shape == (200, 3, 64, 64)
    assert not drawn.single.any()
    assert 0.4 < drawn.share.mean() < 0.6
    first = (drawn.images - drawn.first_rendering.images).abs().mean((1, 2, 3))
    second = (drawn.images - drawn.second_rendering.images).abs().mean((1, 2, 3))
    apart = (drawn.first_rendering.images - drawn.second_rendering.images).abs().mean((1, 2, 3))
    assert (first <= apart + 0.02).all(), "between the two, but for patches"
    differs = apart > 0.02
    nearer = (first < second) == (drawn.share > 0.5)
    assert nearer[differs & ((drawn.share - 0.5).abs() > 0.15)].float().mean() > 0.9
    margins = drawn.margins(overlay(BOX)[torch.zeros(200, dtype=torch.long)])
    assert all(m.yes.abs().max() <= FARTHEST and m.no.abs().max() <= FARTHEST for m in margins.values())


def test_batches():
    scene = sample_scenes(4, torch.Generator().manual_seed(1))
    rendering = render(scene)
    one = Blends.of_one(rendering.images, scene, rendering)
    assert one.single.all()
    both = Blends.concatenate([one[:1], one[torch.tensor([3])]])
    assert torch.equal(both.images, rendering.images[[0, 3]])
    assert torch.equal(both.first_rendering.ink, rendering.ink[[0, 3]])
