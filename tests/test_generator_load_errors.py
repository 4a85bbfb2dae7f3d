"""Models that cannot be used: one line each, and exit status 2."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    RePaintScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from small_generator import load, saved

from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator, self_test
from dualproc_cli.generator.schedulers import working_schedulers
from dualproc_cli.models.load_errors import missing_package
from dualproc_cli.spec import GeneratorSpec

SD = "stable-diffusion"


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_generator(GeneratorSpec(model=str(folder), width=64, height=64, steps=2), torch.device("cpu"))
    assert caught.value.exit_status == 2
    message = str(caught.value)
    assert message.startswith(f"generator.model: {folder}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("WanPipeline", "WanPipeline makes videos"),
        ("WanImageToVideoPipeline", "makes videos"),
        ("DDPMPipeline", "takes no prompt"),
        ("StableVideoDiffusionPipeline", "makes videos"),
    ],
)
def test_other_kinds_are_refused_before_anything_is_loaded(tmp_path, kind, reason):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert f"{reason}; choose a text-to-image model" in refused(tmp_path)


def test_a_pipeline_that_needs_a_picture_is_refused(tmp_path):
    plain = StableDiffusionPipeline.from_pretrained(saved(SD))
    StableDiffusionImg2ImgPipeline(**plain.components, requires_safety_checker=False).save_pretrained(
        tmp_path
    )
    message = refused(tmp_path)
    assert "StableDiffusionImg2ImgPipeline with DDIMScheduler draws no picture" in message
    assert "expected a text-to-image pipeline" in message


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "expected a diffusers text-to-image pipeline" in refused(tmp_path)


def test_a_scheduler_that_fails_is_named_with_those_that_work(tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(saved(SD))
    pipeline.register_modules(scheduler=RePaintScheduler())
    pipeline.save_pretrained(tmp_path)
    message = refused(tmp_path)
    assert "StableDiffusionPipeline with RePaintScheduler draws no picture" in message
    assert "schedulers that work: " in message
    for name in ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"):
        assert name in message


def test_schedulers_that_work_are_those_that_passed():
    assert "IPNDMScheduler" in working_schedulers()
    assert "IPNDMScheduler" not in working_schedulers("x0 jump")


def missing(raised: Exception) -> Exception:
    try:
        try:
            raise raised
        except Exception as inner:
            raise OSError("wrapped, as libraries do") from inner
    except OSError as error:
        return error


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (ModuleNotFoundError("No module named 'tiktoken'", name="tiktoken"), "tiktoken"),
        (
            ImportError("\nT5Tokenizer needs it.\nUse `pip install sentencepiece`."),
            "sentencepiece",
        ),
        (NameError("name 'ftfy' is not defined", name="ftfy"), "ftfy"),
        (NameError("name 'typo' is not defined", name="typo"), None),
        (ValueError("something else"), None),
    ],
)
def test_missing_packages_are_recognised(error, package):
    assert missing_package(missing(error)) == package


def test_a_missing_package_is_named_while_loading(monkeypatch):
    def fail(*_, **__):
        raise ImportError("\nT5Tokenizer requires the library.\nUse `pip install sentencepiece`.")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
    assert refused(saved(SD)).endswith("it needs a package that is missing: pip install sentencepiece")


def test_a_missing_package_is_named_while_drawing(monkeypatch):
    generator = load(SD)

    def fail(*_, **__):
        raise NameError("name 'ftfy' is not defined", name="ftfy")

    monkeypatch.setattr(generator.pipeline.vae, "decode", fail)
    with pytest.raises(UserError, match=r"it needs a package that is missing: pip install ftfy$"):
        self_test.find_conventions(generator)
