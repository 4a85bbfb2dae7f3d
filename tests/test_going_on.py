"""Going on from a learned control."""

import pytest
import torch
from small_generator import load, with_adapter
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bundle import Bundle
from dualproc_cli.errors import UserError
from dualproc_cli.files import digest
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.learning.output import Output
from dualproc_cli.learning.start import read_start
from dualproc_cli.spec import load_spec

CPU = torch.device("cpu")


@pytest.fixture
def first(small_spec, tmp_path):
    spec = small_spec(tmp_path)
    done = CliRunner().invoke(
        app, ["learn", str(spec), "-o", str(tmp_path / "first"), "--set", "learn.steps=1"]
    )
    assert done.exit_code == 0, done.output
    return tmp_path / "first"


def test_learning_goes_on_from_a_bundle_whatever_the_scale(small_spec, tmp_path, first):
    # A step that hardly moves: what is written is what was started from.
    settings = ["learn.steps=1", "learn.learning_rate=1.0e-9", "learn.adapter.scale=4.0"]
    command = ["learn", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "second"), "--from", str(first)]
    done = CliRunner().invoke(app, command + [part for one in settings for part in ("--set", one)])
    assert done.exit_code == 0, done.output
    before, after = AdapterFile.read(first).tensors, AdapterFile.read(tmp_path / "second").tensors
    assert any(before[key].any() for key in before if ".lora_B." in key)
    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-7)
    manifest = Bundle.open(tmp_path / "second").manifest
    assert manifest.started_from == digest(first / "pytorch_lora_weights.safetensors")
    assert "started from" in CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "second")]).output


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("learn.adapter.rank=3", "a lora of rank 2; set learn.adapter.type and .rank to these"),
        ("learn.adapter.target_modules=[to_q]", "it adapts other layers"),
        ("generator.adapters=[{path: turbo}]", "learned on top of other adapters"),
        ("generator.model=miniature", "made for another generator than miniature"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tmp_path, first, setting, reason):
    (tmp_path / "turbo").mkdir()
    with_adapter(load()).save_adapter(tmp_path / "turbo")
    loaded = load_spec(tmp_path / "spec.yaml", [setting])
    with pytest.raises(UserError, match=reason) as caught:
        read_start(Bundle.open(first), loaded)
    assert "\n" not in str(caught.value)


def test_a_run_is_resumed_with_the_start_that_it_had(small_spec, tmp_path, first, monkeypatch):
    from dualproc_cli.learning import learn

    loaded = load_spec(tmp_path / "spec.yaml", ["learn.steps=2", "learn.checkpoint_every=1"])
    place = Output(tmp_path / "second")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dualproc_cli.learning.control._finish", stop)
    with pytest.raises(KeyboardInterrupt):
        learn(loaded, place.bundle, device=CPU, start=Bundle.open(first))
    with pytest.raises(UserError, match="resume with that spec, its --set and --from"):
        place.prepare(loaded.spec, resume=True, overwrite=False)
    started = digest(first / "pytorch_lora_weights.safetensors")
    assert place.prepare(loaded.spec, resume=True, overwrite=False, started_from=started).step == 2
