"""Loading a VLM: models that cannot be used are refused in one line."""

import json
import shutil

import pytest
import small_vlm
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Idefics3Processor

from dualproc_cli.errors import UserError
from dualproc_cli.spec import VlmSpec
from dualproc_cli.vlm import load_processor, load_vlm

CPU = torch.device("cpu")


@pytest.fixture
def folder(vlm_folder, tmp_path):
    """A copy of a small VLM, to be damaged."""
    return shutil.copytree(vlm_folder, tmp_path / "model")


def refused(folder, **options):
    with pytest.raises(UserError) as error:
        load_vlm(VlmSpec(model=str(folder), **options), CPU)
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("vlm.model: ", "vlm.quantization: "))
    return str(error.value)


def test_loaded_model_is_frozen(vlm_folder):
    vlm = load_vlm(VlmSpec(model=str(vlm_folder)), CPU)
    assert not vlm.model.training
    assert not any(parameter.requires_grad for parameter in vlm.model.parameters())
    assert vlm.dtype == torch.float32
    assert vlm.revision is None
    assert vlm.workarounds == ()


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/nowhere/at/all", "~/nowhere", "three/part/name", "~nobody-x/y", "[/]", "two..dots"],
)
def test_missing_folder(name):
    assert f"{name}: no such folder; expected an image-text-to-text model" in refused(name)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "gated: accept its licence at https://huggingface.co/some/model, then run `hf auth"),
        (RevisionNotFoundError, "no revision 'old'; leave vlm.revision out, or name a branch or a commit"),
        (RepositoryNotFoundError, "no such hub model and no such folder; check the name"),
        (LocalEntryNotFoundError, "the hub cannot be reached and the local cache has no complete copy"),
        (ImportError, "it needs a package that is missing"),
    ],
)
@pytest.mark.parametrize("reader", [AutoConfig, AutoProcessor, AutoModelForImageTextToText])
def test_what_the_hub_refuses_is_explained(reader, kind, message, vlm_folder, monkeypatch):
    def from_pretrained(*_, **__):
        raise OSError("wrapped, as transformers does") from kind.__new__(kind)

    for each in (AutoConfig, AutoProcessor, AutoModelForImageTextToText):  # what comes before is there
        own = each.from_pretrained
        monkeypatch.setattr(each, "from_pretrained", lambda *_, own=own, **__: own(vlm_folder))
    monkeypatch.setattr(reader, "from_pretrained", from_pretrained)
    assert message in refused("some/model", revision="old")


def test_missing_package(folder, monkeypatch):
    def needs(*_, **__):
        raise ImportError("\nPackage `num2words` is required. Install it with `pip install num2words`.\n")

    monkeypatch.setattr(Idefics3Processor, "__init__", needs)
    assert refused(folder).endswith("it needs a package that is missing: pip install num2words")


def test_missing_package_below_another_error(folder, monkeypatch):
    def needs(*_, **__):
        raise ImportError("Could not import module") from ModuleNotFoundError("No module", name="timm.data")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", needs)
    assert refused(folder).endswith("it needs a package that is missing: pip install timm")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "clip"},
            "is a clip model, which answers no questions about pictures; expected an image",
        ),
        ({"model_type": "llama"}, "is a llama model, which answers no questions about pictures"),
        ({"model_type": "no-such-model"}, "does not recognize this architecture"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}},
            "set vlm.trust_remote_code: true",
        ),
        ({}, "Should have a `model_type` key"),
    ],
)
def test_models_of_another_kind(config, message, folder):
    (folder / "config.json").write_text(json.dumps(config))
    assert message in refused(folder)
    with pytest.raises(UserError):
        load_processor(VlmSpec(model=str(folder)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "processor_config.json").unlink(), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), ""),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"damaged"), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "model.safetensors"),
    ],
)
def test_damaged_models(damage, message, folder):
    damage(folder)
    assert message in refused(folder)


def test_incomplete_weights(folder):
    weights = load_file(folder / "model.safetensors")
    dropped = sorted(weights)[0]
    save_file({key: value for key, value in weights.items() if key != dropped}, folder / "model.safetensors")
    assert "incomplete: 1 weights missing" in refused(folder)


def test_tokenizer_alone(tmp_path):
    small_vlm.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
    refused(tmp_path)
