"""Loading a generator: the self-test, models that cannot be used, devices and precisions."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from small_generator import load, make_generator

from dualproc_cli.device import pick_device, pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator, self_test
from dualproc_cli.spec import AdapterSpec, GeneratorSpec

CPU = torch.device("cpu")


def test_tensors_between_minus_one_and_one_are_recognised():
    generator = load()
    expected = generator.render(["a house"], [1])
    processor = generator.pipeline.image_processor
    own = processor.postprocess
    processor.postprocess = lambda image, output_type: (
        image if output_type == "pt" else own(image, output_type)
    )
    generator.conventions = self_test.find_conventions(generator)
    assert generator.conventions.low == -1
    torch.testing.assert_close(generator.render(["a house"], [1]), expected)
    processor.postprocess = lambda image, output_type: (
        7 * image if output_type == "pt" else own(image, output_type)
    )
    with pytest.raises(UserError, match="neither"):
        self_test.find_conventions(generator)


def test_the_self_test_names_weights_without_gradient():
    generator = load()
    broken = generator.denoiser.transformer_blocks[0].ff
    broken.forward = torch.no_grad()(broken.forward)
    with pytest.raises(
        UserError, match=r"no gradient reaches 4 of .* transformer_blocks\.0\.ff\.net\.0\.proj\.lora_A"
    ):
        generator.add_adapter(AdapterSpec(rank=2), seed=0)


def test_the_self_test_forgives_weights_that_do_not_matter():
    generator = load()
    generator.denoiser.unused = torch.nn.Linear(4, 4)
    generator.add_adapter(AdapterSpec(rank=2, target_modules=("unused", "to_q")), seed=0)
    assert any(key.startswith("unused.") for key in generator.adapter_state())


def test_a_pipeline_that_draws_nothing_from_a_prompt_is_refused(monkeypatch):
    generator = load()
    monkeypatch.setattr(generator.pipeline.vae, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"draws no picture of 64 x 64 from a prompt \(division by zero"):
        self_test.find_conventions(generator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "./nowhere"}, "no such folder"),
        ({"quantization": "nf4"}, "generator.quantization: nf4: needs a CUDA device"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(changes, message):
    spec = GeneratorSpec(**{"model": "./nowhere", "width": 64, "height": 64, **changes})
    with pytest.raises(UserError, match=message) as caught:
        load_generator(spec, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "accept its licence at https://huggingface.co/some/model"),
        (RevisionNotFoundError, "no revision 'old'"),
        (RepositoryNotFoundError, "no such hub model"),
        (LocalEntryNotFoundError, "the hub cannot be reached"),
        (ImportError, "needs a package that is missing"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, kind, message):
    def download(*_, **__):
        raise OSError("wrapped, as diffusers does") from kind.__new__(kind)

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    with pytest.raises(UserError, match=message):
        load_generator(GeneratorSpec(model="some/model", revision="old", width=64, height=64), CPU)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "model_index.json").unlink(),
            "expected a diffusers text-to-image pipeline",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text("{"),
            "expected a diffusers text-to-image pipeline",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}'),
            "NoSuchPipeline",
        ),
        (
            lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(
                b"damaged"
            ),
            "cannot be loaded",
        ),
        (
            lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink(),
            "diffusion_pytorch_model",
        ),
    ],
)
def test_damaged_models_are_refused_in_one_line(tmp_path, damage, message):
    folder = make_generator(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_generator(GeneratorSpec(model=str(folder), width=64, height=64), CPU)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_devices_and_precisions(monkeypatch):
    assert pick_device("cpu") == CPU
    assert pick_dtype("auto", CPU) is torch.float32
    assert pick_dtype("auto", SimpleNamespace(type="cuda")) is torch.bfloat16  # type: ignore[arg-type]
    assert pick_dtype("float16", CPU) is torch.float16
    for name in ("tpu", "gpu", "cpu:7", "cuda:99", ""):
        with pytest.raises(UserError, match="expected one of: cpu"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device(None) == CPU
