"""The reader behind the measures: what it reads off true renders is exact, and artefacts show."""

from dataclasses import replace

import pytest
import torch
from scenes import make_scene
from torch.nn import functional as F

from dualproc_cli.measures.color import ciede2000
from dualproc_cli.miniature.world.judging import residual, texture
from dualproc_cli.miniature.world.reader import read, scene_numbers
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import DAY, LOOKS, NIGHT, NOBODY, SUBJECTS, Scene, sample_scenes


def told(scene):
    """Return a reader that finds ``scene`` in any picture."""
    far = torch.where(scene.kind[:, 1] == NOBODY, len(SUBJECTS), scene.kind[:, 1])
    sure = {
        "near": F.one_hot(scene.kind[:, 0], len(SUBJECTS)).float(),
        "far": F.one_hot(far, len(SUBJECTS) + 1).float(),
        "look": F.one_hot(scene.look, len(LOOKS)).float(),
        "on": scene.on.float() - 0.5,
    }
    return lambda images: {**scene_numbers(scene), **sure}


def misread(scene, rng):
    """Return the scene with everything continuous off by up to a few pixels."""
    off = {"horizon": 2, "outline": 0.5, "x": 2, "base": 2, "scale": 0.05, "colors": 0.04, "sun_x": 2}
    moved = {}
    for name, by in off.items():
        value = getattr(scene, name)
        moved[name] = value + by * (2 * torch.rand(value.shape, generator=rng) - 1)
    return replace(scene, **moved)


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(32, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reading(scenes):
    """Return what is read off true renders from a start that is a few pixels off."""
    start = misread(scenes, torch.Generator().manual_seed(1))
    return read(told(start), render(scenes).images)


def test_fit_recovers_what_the_picture_shows(scenes, reading):
    found = reading.scene
    assert (found.horizon - scenes.horizon).abs().max() < 0.25
    assert (found.horizon - scenes.horizon).abs().median() < 0.05
    assert (found.x - scenes.x)[:, 0].abs().max() < 0.2
    assert torch.equal(found.kind, scenes.kind)
    assert torch.equal(found.on[:, 0], scenes.on[:, 0])
    # Ink hides the branches of a bare tree and the pole of a lamp: not all can be read to the same precision.
    assert (found.outline - scenes.outline).abs().quantile(0.9) < 0.2
    assert ciede2000(found.colors, scenes.colors).mean(1).quantile(0.9) < 2
    assert reading.residual.max() < 0.03


def test_fit_comes_back_from_the_limit_of_thin_outlines():
    scene = Scene.concatenate([make_scene(subject, outline=0.7) for subject in SUBJECTS])
    start = replace(scene, outline=torch.full((4,), 0.25), x=scene.x + 1.5)
    found = read(told(start), render(scene).images).scene
    assert (found.outline - 0.7).abs().max() < 0.1


def test_a_horizon_far_from_the_first_reading_is_found_despite_its_traces():
    scene = Scene.concatenate([make_scene(subject, horizon=42.0) for subject in SUBJECTS])
    old = replace(scene, horizon=torch.full((4,), 18.0))
    ghosted = torch.lerp(render(scene).images, render(old).images, 0.3)
    assert (read(told(old), ghosted).scene.horizon - 42).abs().max() < 1


def test_subject_and_attribute_are_chosen_by_the_picture():
    scene = Scene.concatenate(
        [make_scene(subject, on=(True, False)) for subject in ("house", "tree", "lamp")]
    )
    start = replace(scene, kind=torch.tensor([[SUBJECTS.index("house"), NOBODY]] * 3), on=~scene.on)
    found = read(told(start), render(scene).images).scene
    assert torch.equal(found.kind, scene.kind)
    assert torch.equal(found.on[:, 0], scene.on[:, 0])


def test_it_is_night_only_where_stars_are_seen():
    pale = torch.tensor([[0.75, 0.85, 0.93], [0.4, 0.5, 0.6], [0.8, 0.5, 0.4]])
    day, night = (make_scene("ball", colors=pale, look=look) for look in (DAY, NIGHT))
    sunless = render(night).images
    sky = render(replace(day, sun_x=torch.tensor([-20.0]))).images
    lights = render(night).lights[:, None] > 0
    sunless = torch.where(lights, sky, sunless)
    assert read(told(day), sunless).scene.look != NIGHT
    assert read(told(night), sunless).scene.look != NIGHT
    assert read(told(day), render(night).images).scene.look == NIGHT
    for brightness, looks_so in ((0.3, True), (0.1, False)):
        dimmed = torch.lerp(sunless, render(night).images, brightness)
        assert all((read(told(one), dimmed).scene.look == NIGHT) == looks_so for one in (day, night))


def test_no_second_subject_is_made_up():
    scene = Scene.concatenate([make_scene(subject) for subject in SUBJECTS])
    start = replace(scene, kind=torch.stack([scene.kind[:, 0], torch.tensor([2, 3, 0, 1])], 1))
    noise = 0.04 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = read(told(start), render(scene).images + noise).scene
    assert torch.equal(found.kind, scene.kind)


def test_texture_and_residual_show_a_checkerboard(reading, scenes):
    images = render(scenes).images
    board = 0.06 * (1 - 2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2))
    damaged = read(told(scenes), (images + board).clamp(0, 1))
    assert texture(reading, images).abs().max() < 0.05
    assert texture(damaged, (images + board).clamp(0, 1)).min() > 0.1
    assert (residual(damaged, images) - residual(reading, images)).min() > 0.02
    assert (damaged.scene.horizon - scenes.horizon).abs().max() < 0.5, "and the measures still see through it"
