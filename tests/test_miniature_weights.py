"""The shipped weights: damage is named, the scene reader reads renders right, the card gives the figures."""

import json
import shutil

import pytest
import torch

from dualproc_cli import miniature
from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator
from dualproc_cli.measures.clean import CleanRange
from dualproc_cli.measures.color import ciede2000
from dualproc_cli.miniature import reader_folder
from dualproc_cli.miniature.training.card import card
from dualproc_cli.miniature.training.figures import palette_figures
from dualproc_cli.miniature.training.vlm import load_networks
from dualproc_cli.miniature.world.judging import residual
from dualproc_cli.miniature.world.questions import seen_color_difference
from dualproc_cli.miniature.world.reader import load_reader, read
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import sample_scenes, with_random_colors
from dualproc_cli.spec import GeneratorSpec


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A copy of the shipped weights that may be broken."""
    copy = shutil.copytree(miniature.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(miniature, "WEIGHTS", copy)
    return copy


def test_whole_weights_are_found(weights):
    assert (miniature.generator_folder() / "model_index.json").is_file()
    assert (miniature.vlm_folder() / "config.json").is_file()


def test_damaged_file_is_named_with_what_restores_it(weights):
    path = weights / "vlm" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"vlm/model\.safetensors: damaged.*pip install"):
        miniature.vlm_folder()
    assert miniature.generator_folder().is_dir(), "the other parts are whole"


@pytest.mark.parametrize("name", ["reader/model.safetensors", "digests.json"])
def test_missing_file_is_named_with_what_restores_it(weights, name):
    (weights / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing.*pip install"):
        miniature.reader_folder()


def test_reading_recovers_true_scenes():
    scene = sample_scenes(6, torch.Generator().manual_seed(11), pairs=0.5)
    found = read(load_reader(reader_folder()), render(scene).images).scene
    assert (found.horizon - scene.horizon).abs().max() < 0.2
    assert (found.outline - scene.outline).abs().max() < 0.2
    assert torch.equal(found.kind, scene.kind)


def test_reading_recovers_scenes_of_any_colors():
    """Also those that no family has, and that the reader's network has hardly seen."""
    rng = torch.Generator().manual_seed(4)
    scene = with_random_colors(sample_scenes(16, rng, pairs=0.0), 1.0, rng)
    reading = read(load_reader(reader_folder()), render(scene).images)
    assert reading.residual.median() < 0.01
    assert (reading.residual < 0.03).sum() >= 15
    difference = ciede2000(reading.scene.colors, scene.colors)
    assert (seen_color_difference(scene, difference) < 3).sum() >= 14


def test_other_weights_than_a_bundle_was_learned_with_are_refused(weights):
    own = miniature.revision("generator")
    assert own != miniature.revision("vlm")
    assert miniature.generator_folder(own) == weights / "generator"
    with pytest.raises(
        UserError, match=r"generator: the miniature's weights c0ffee are wanted.* learn the control again"
    ):
        miniature.generator_folder("c0ffee")
    digests = weights / miniature.DIGESTS
    digests.write_text(
        digests.read_text().replace('"generator/vae/config.json": "', '"generator/vae/config.json": "0')
    )
    assert miniature.revision("generator") != own


def test_model_card_is_what_the_recorded_figures_say():
    figures = json.loads((miniature.WEIGHTS / "figures.json").read_text())
    assert card(figures.pop("training"), figures) == (miniature.WEIGHTS / "README.md").read_text()


def test_the_vlm_compares_each_color_of_a_palette():
    yes = palette_figures(load_networks(miniature.WEIGHTS).eval(), batches=2)
    assert yes["none"] > 0.9
    assert max(yes["sky"], yes["ground"]) < 0.1
    assert yes["subject"] < 0.3, "it is small beside sky and ground"


@pytest.mark.parametrize("prompt", ["a ball at night", "a ball in front of a house"])
def test_what_the_generator_draws_is_clean_by_its_range_of_other_prompts(prompt):
    """Stars, and edges of two subjects, are further from any scene; that is no artefact."""
    generator = load_generator(
        GeneratorSpec(width=64, height=64, steps=1, guidance_scale=0.0), torch.device("cpu")
    )
    reader = load_reader(reader_folder())
    plain, other = (
        residual(read(reader, images), images)[:, None]
        for images in (generator.render([text] * 32, range(32)) for text in ("a ball in a field", prompt))
    )
    assert CleanRange.of(plain, torch.tensor([False])).holds(other).float().mean() > 0.7
