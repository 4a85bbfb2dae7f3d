"""The procedural world: scenes, pictures, prompts, colours, and the noise that stands for a scene."""

import itertools

import pytest
import torch
from scenes import make_scene

from dualproc_cli.measures.color import ciede2000, lab, lab_difference
from dualproc_cli.miniature.world.captions import (
    PLACES,
    WORDS,
    caption,
    captions,
    describe,
    parse,
    unknown_words,
    words,
)
from dualproc_cli.miniature.world.coupling import TOKEN_CHANNELS, TOKENS, noise_with, numbers_in, uniforms_in
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    DAY,
    FAMILY_COLORS,
    LOOKS,
    NOBODY,
    SEA,
    SUBJECTS,
    UNIFORMS,
    WINTER,
    Scene,
    apply_look,
    sample_prompts,
    sample_scenes,
    scene_from_uniforms,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Scenes


def test_scenes_stay_in_their_ranges():
    rng = seeded()
    kind, look = sample_prompts(3000, rng, pairs=0.5)
    u = torch.rand(3000, UNIFORMS, generator=rng)
    u[:2] = torch.tensor([[0.0], [1.0]])
    scene = scene_from_uniforms(u, kind, look)
    pair = scene.kind[:, 1] != NOBODY
    assert scene.horizon.min() >= 12.8
    assert scene.horizon.max() <= 51.2
    assert scene.outline.min() >= 0.5
    assert scene.outline.max() <= 4
    assert scene.colors.min() >= 0.02
    assert scene.colors.max() <= 0.98
    assert (scene.base[:, 0] - scene.horizon).min() >= 3, "subjects stand on the ground"
    assert (scene.base - scene.horizon[:, None]).min() >= 2
    assert scene.base.max() <= 61
    assert (scene.base[:, 0] - scene.base[:, 1])[pair].min() > 0, "the nearer one stands lower"
    assert ((scene.x[:, 0] - scene.x[:, 1]).abs())[pair].min() >= 13
    by_day = scene.colors[scene.look == DAY]
    families = torch.cdist(by_day.flatten(1), FAMILY_COLORS.flatten(1)).argmin(1)
    assert set(families.tolist()) == set(range(len(FAMILY_COLORS)))
    assert scene.on.float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_prompts_of_two_show_different_subjects_in_daylight():
    kind, look = sample_prompts(1000, seeded(), pairs=0.5)
    pair = kind[:, 1] != NOBODY
    assert float(pair.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert (kind[pair, 0] != kind[pair, 1]).all()
    assert (look[pair] == DAY).all()
    assert set(look[~pair].tolist()) == set(range(len(LOOKS)))


# Pictures


def test_picture_is_the_same_in_any_batch():
    scenes = sample_scenes(12, seeded(), pairs=0.5)
    together = render(scenes)
    assert torch.equal(together.images, render(scenes).images)
    assert together.images.min() >= 0
    assert together.images.max() <= 1
    for index in range(12):
        alone = render(scenes[index : index + 1])
        assert torch.allclose(alone.images[0], together.images[index], atol=1e-6)
        assert torch.allclose(alone.closeness[0], together.closeness[index], atol=1e-6)


@pytest.mark.parametrize("horizon", [12.8, 30.0, 30.25, 51.2])
def test_horizon_is_drawn_to_a_part_of_a_row(horizon):
    rendering = render(make_scene(horizon=horizon, x=(45.0, 0.0), sun_x=50.0))
    assert float(rendering.ground[0, :, 2].sum()) == pytest.approx(64 - horizon, abs=1e-4)
    row, share = int(horizon), horizon % 1
    above, edge, below = rendering.images[0, :, row - 1 : row + 2, 2].unbind(1)
    assert torch.allclose(edge, share * above + (1 - share) * below, atol=0.02)
    assert (above - below).abs().max() > 0.2


def test_nearer_subject_hides_the_farther():
    places = {"x": (32.0, 32.0), "base": (56.0, 44.0), "scale": (1.0, 0.7)}
    both, alone = render(make_scene("house", "tree", **places)), render(make_scene("house", **places))
    hidden = both.subject[0, 0] == 1
    assert hidden.sum() > 200
    assert both.subject[0, 1][hidden].max() == 0
    assert torch.allclose(both.images[..., hidden], alone.images[..., hidden], atol=0.02)
    assert both.subject.sum(1).max() <= 1
    assert both.subject[0, 1].sum() > 20, "its top looks out"


def test_closeness_is_rows_below_the_horizon():
    scene = make_scene("ball", "house", x=(40.0, 20.0), base=(58.0, 46.0), horizon=40.0)
    closeness = render(scene).closeness[0]
    assert closeness[:40, 2].max() == 0, "the sky"
    assert closeness[60, 2] == pytest.approx(20.5), "the ground"
    assert closeness[48, 40] == 18, "the ball"
    assert closeness[40, 20] == 6, "the house"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_attribute_is_visible_and_changes_nothing_else(subject):
    on, off = (render(make_scene(subject, on=(state, False))) for state in (True, False))
    change = (on.images - off.images).abs().amax((0, 1))
    assert (change > 0.3).sum() > 10
    elsewhere = torch.maximum(on.subject, off.subject)[0, 0] == 0
    limit = {"lamp": 0.7}.get(subject, 0)  # a lit lamp sheds light
    assert change[elsewhere].max() <= limit
    assert change[:, :8].max() < 0.01


def test_looks_differ():
    looks = torch.arange(len(LOOKS))
    colors = apply_look(FAMILY_COLORS[:1].expand(len(LOOKS), -1, -1), looks)
    scenes = [make_scene(look=look, colors=colors[look]) for look in looks.tolist()]
    images = render(Scene.concatenate(scenes)).images
    for one, other in itertools.combinations(images, 2):
        assert (one - other).abs().mean() > 0.03
    sea, day = images[SEA], images[DAY]
    assert torch.equal(sea[:, :40], day[:, :40]), "the sea is no sky"
    assert (images[WINTER, :, 60, 2] > day[:, 60, 2]).all(), "snow is bright"


@pytest.mark.parametrize("outline", [0.5, 1.5, 4.0])
def test_outline_is_as_wide_as_it_says(outline):
    ink = render(make_scene("ball", outline=outline)).ink
    assert float(ink.sum()) == pytest.approx(2 * torch.pi * 10.5 * outline, rel=0.02)


# Prompts

ALL = list(itertools.product(range(len(SUBJECTS)), [NOBODY, *range(len(SUBJECTS))], PLACES))


def test_parse_reads_every_prompt_back():
    for near, far, place in ALL:
        look = PLACES[place] if far == NOBODY else DAY
        assert parse(caption(near, far, place)) == (near, far, look)
    assert parse("A HOUSE, in a field.") == (0, NOBODY, DAY)


def test_every_word_of_a_prompt_is_known():
    assert {word for prompt in itertools.starmap(caption, ALL) for word in words(prompt)} == set(WORDS)


@pytest.mark.parametrize("text", ["", "house", "a dog", "a house in space", "a house in front of a dog"])
def test_parse_refuses_other_texts(text):
    assert parse(text) is None


def test_unknown_words():
    assert unknown_words("a red house in a field") == ["red"]
    assert unknown_words("a house, by the sea!") == []


def test_captions_say_what_is_drawn_in_all_ways():
    kind, look = sample_prompts(500, seeded())
    prompts = captions(kind, look, seeded(1))
    assert [parse(prompt) for prompt in prompts] == [
        (near, far, shown) for (near, far), shown in zip(kind.tolist(), look.tolist(), strict=True)
    ]
    for place in PLACES:
        assert any(prompt.endswith(place) for prompt in prompts)


def test_describe():
    assert describe(0, NOBODY) == "a house"
    assert describe(2, 0) == "a ball and a house"


# The noise that stands for a scene


def test_numbers_in_noise_are_independent_and_normal():
    numbers = numbers_in(torch.randn(4000, TOKENS, TOKEN_CHANNELS, generator=seeded()))
    covariance = numbers.T.cov()
    assert numbers.mean(0).abs().max() < 0.08
    assert (covariance - torch.eye(TOKEN_CHANNELS)).abs().max() < 0.1
    assert float((numbers.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_noise_with_sets_its_numbers_and_nothing_else():
    noise = torch.randn(5, TOKENS, TOKEN_CHANNELS, generator=seeded())
    wanted = torch.randn(5, UNIFORMS, generator=seeded(1))
    changed = noise_with(wanted, noise)
    assert torch.allclose(numbers_in(changed)[:, :UNIFORMS], wanted, atol=1e-5)
    assert torch.allclose(changed[..., UNIFORMS:], noise[..., UNIFORMS:], atol=1e-6)
    around_mean = [value - value.mean(1, keepdim=True) for value in (changed, noise)]
    assert torch.allclose(*around_mean, atol=1e-5)


def test_uniforms_are_evenly_spread():
    uniforms = uniforms_in(torch.randn(4000, TOKENS, TOKEN_CHANNELS, generator=seeded()))
    assert uniforms.shape == (4000, UNIFORMS)
    for low in (0, 0.25, 0.5, 0.75):
        share = ((uniforms > low) & (uniforms < low + 0.25)).float().mean(0)
        assert share.tolist() == pytest.approx([0.25] * UNIFORMS, abs=0.03)


# Colours


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [  # from the test data of Sharma, Wu and Dalal
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_of_the_published_pairs(first, second, difference):
    first, second = (torch.tensor(values, dtype=torch.float64) for values in (first, second))
    assert float(lab_difference(first, second)) == pytest.approx(difference, abs=1e-4)
    assert float(lab_difference(second, first)) == pytest.approx(difference, abs=1e-4)


def test_lab_of_known_colors():
    known = {(1, 1, 1): (100, 0, 0), (0, 0, 0): (0, 0, 0), (1, 0, 0): (53.24, 80.09, 67.20)}
    for color, expected in known.items():
        assert lab(torch.tensor(color, dtype=torch.float32)).tolist() == pytest.approx(expected, abs=0.02)


def test_no_difference_to_itself():
    colors = torch.rand(100, 3, generator=seeded())
    assert ciede2000(colors, colors).max() == 0
