"""The shipped weights: damage is named, and the measures that rest on them read true renders right."""

import shutil

import pytest
import torch

from dualproc_cli import miniature
from dualproc_cli.errors import UserError
from dualproc_cli.evaluation.judge import load_reader
from dualproc_cli.miniature.reader import read
from dualproc_cli.miniature.render import render
from dualproc_cli.miniature.scene import sample_scenes


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
    scene = sample_scenes(12, torch.Generator().manual_seed(11))
    found = read(load_reader(), render(scene).images).scene
    assert (found.horizon - scene.horizon).abs().median() < 0.2
    assert (found.outline - scene.outline).abs().median() < 0.3
    assert (found.kind[:, 0] == scene.kind[:, 0]).float().mean() > 0.8
