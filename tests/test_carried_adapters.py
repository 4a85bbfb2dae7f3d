"""A generator that carries adapters, and single-file checkpoints: drawn as plain diffusers draws them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline
from ldm_file import save_as_one_file
from safetensors.torch import load_file, save_file
from small_generator import load, plain_picture, saved, with_adapter
from spec_files import SHORTEST, fault_lines
from test_bundle import write

from dualproc_cli.bundle import Bundle
from dualproc_cli.errors import UserError
from dualproc_cli.exporting import export_bundle
from dualproc_cli.generator import load_generator
from dualproc_cli.memory import plan_drawing
from dualproc_cli.sampling import Control, generator_for
from dualproc_cli.spec import GeneratorSpec, load_spec
from dualproc_cli.spec.models import LoadedAdapterSpec

CPU = torch.device("cpu")


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def lora(folder: Path, name: str = "flux", seed: int = 0) -> Path:
    """Write an adapter of random weights as a learned one is written."""
    folder.mkdir(parents=True)
    return with_adapter(load(name), seed=seed).save_adapter(folder)


def weakened_kohya(folder: Path) -> Path:
    """Write a LoRA of Stable Diffusion under kohya's names; half of its layers at half their strength."""
    path = lora(folder, "stable-diffusion")
    spec = GeneratorSpec(model="x")
    bundle = SimpleNamespace(
        folder=folder,
        source=folder,
        manifest=SimpleNamespace(name="other"),
        spec=SimpleNamespace(description="", generator=spec),
    )
    kohya = export_bundle(bundle, "kohya", folder / "kohya.safetensors")
    tensors = load_file(kohya)
    for index, key in enumerate(sorted(key for key in tensors if key.endswith(".alpha"))):
        tensors[key] = tensors[key] / (1 + index % 2)
    save_file(tensors, kohya)
    path.unlink()
    return kohya


def test_a_foreign_lora_has_the_strength_that_its_alphas_say(tmp_path):
    path = weakened_kohya(tmp_path / "other")
    generator = load("stable-diffusion", adapters=[{"path": str(path), "scale": 0.7}])
    pipeline = DiffusionPipeline.from_pretrained(saved("stable-diffusion"))
    halves = load_file(path)
    for key in [key for key in halves if key.endswith(".alpha")]:  # mixed alphas, as weights
        rank = len(halves[key.replace(".alpha", ".lora_down.weight")])
        halves[key.replace(".alpha", ".lora_up.weight")] *= halves.pop(key) / rank
    pipeline.load_lora_weights(halves, adapter_name="other")
    pipeline.set_adapters(["other"], [0.7])
    base = plain_picture(
        DiffusionPipeline.from_pretrained(saved("stable-diffusion")), "stable-diffusion", "a", 3
    )
    carried = generator.render(["a"], [3])
    same(carried, plain_picture(pipeline, "stable-diffusion", "a", 3))
    assert (carried - base).abs().max() > 0.01


def test_alphas_and_ranks_of_peft_metadata_are_heeded(tmp_path):
    path = lora(tmp_path / "peft")
    tensors = load_file(path)
    layers = sorted({key.split(".lora_")[0] for key in tensors})
    for key in [key for key in tensors if key.startswith(layers[0])]:  # one layer of a higher rank
        extra = torch.ones_like(tensors[key])
        tensors[key] = torch.cat([tensors[key], extra], 0 if ".lora_A." in key else 1)
    config = {
        "transformer.r": 2,
        "transformer.lora_alpha": 3,
        "transformer.rank_pattern": {layers[0].removeprefix("transformer."): 4},
        "transformer.alpha_pattern": {layers[1].removeprefix("transformer."): 1},
        "transformer.target_modules": [layer.removeprefix("transformer.") for layer in layers],
    }
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    pipeline = DiffusionPipeline.from_pretrained(saved("flux"))
    pipeline.load_lora_weights(path)
    generator = load(adapters=[{"path": str(path)}])
    same(generator.render(["a house"], [3]), plain_picture(pipeline, "flux", "a house", 3))


def test_what_is_carried_is_a_part_of_the_base(tmp_path):
    path = lora(tmp_path / "turbo", seed=1)
    generator = load(adapters=[{"path": str(path), "scale": -0.4}])
    base = generator.render(["a house"], [0])
    with_adapter(generator, seed=2)
    learned = generator.render(["a house"], [0])
    with generator.without_adapter():
        assert torch.equal(generator.render(["a house"], [0]), base)
    assert torch.equal(generator.render(["a house"], [0]), learned)
    assert (learned - base).abs().max() > 0.01
    trainable = [parameter for parameter in generator.denoiser.parameters() if parameter.requires_grad]
    assert len(trainable) == len(generator.adapter_parameters())
    generator.save_adapter(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(saved("flux"))
    pipeline.load_lora_weights(path, adapter_name="turbo")
    pipeline.load_lora_weights(tmp_path, adapter_name="control")
    pipeline.set_adapters(["turbo", "control"], [-0.4, 1.0])
    same(plain_picture(pipeline, "flux", "a house", 0), learned)


def test_a_bundle_holds_what_it_stands_on_and_is_drawn_with_it(small_spec, tmp_path):
    lora(tmp_path / "spec" / "turbo", seed=1)
    adapters = [{"path": "turbo", "scale": 0.5}]
    loaded = load_spec(small_spec(tmp_path / "spec", {"generator": {"adapters": adapters}}))
    generator = with_adapter(load_generator(loaded.generator, CPU), seed=2)
    prompt = loaded.spec.prompts.train[0]
    learned = generator.render([prompt], [0])
    write(tmp_path / "bundle", loaded, generator)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.spec["generator"]["adapters"] == adapters
    assert "turbo/pytorch_lora_weights.safetensors" in manifest.files

    control = Control.parse(str(tmp_path / "bundle"))
    sampler = plan_drawing(generator_for([control], None), [prompt], (), 1, CPU).load_generator()
    sampler.load_adapters([(control.bundle.folder, 1.0)])
    same(sampler.render([prompt], [0]), learned)

    code = (tmp_path / "bundle" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("PATH_OF_THIS_FOLDER", str(tmp_path / "bundle")).replace(
        "cuda.is_available", "cuda.is_x"
    )
    drawn: dict = {}
    exec(
        code.replace("torch.cuda.is_x()", "False").replace("generator=", "output_type='pt', generator="),
        drawn,
    )
    same(drawn["image"][None], learned)

    other = load_spec(small_spec(tmp_path))
    write(tmp_path / "plain", other, with_adapter(load_generator(other.generator, CPU)))
    with pytest.raises(UserError, match="learned on top of other adapters"):
        generator_for([control, Control.parse(str(tmp_path / "plain"))], None)
    (tmp_path / "bundle" / "turbo" / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"turbo/pytorch_lora_weights.safetensors is missing"):
        Bundle.open(tmp_path / "bundle")


def test_an_adapter_for_another_generator_is_refused_before_weights_are_loaded(tmp_path, monkeypatch):
    flux, sd = lora(tmp_path / "flux"), lora(tmp_path / "sd", "stable-diffusion")
    with_text = load_file(flux) | {"text_encoder.x.lora_A.weight": torch.ones(2, 2)}
    both = tmp_path / "both.safetensors"
    save_file(with_text, both)
    monkeypatch.setattr(
        DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights are loaded")
    )
    for model, path, reason in (
        ("pixart", flux, "made for another generator than"),
        ("flux", sd, "also adapts unet; expected a LoRA of the transformer alone"),
        ("flux", both, "also adapts text_encoder"),
    ):
        spec = GeneratorSpec(model=str(saved(model)), adapters=(LoadedAdapterSpec(path=str(path)),))
        with pytest.raises(UserError, match=reason) as caught:
            load_generator(spec, CPU)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("lora.bin", b"PK\x03\x04" + b"0" * 20, "is a pickle, which can run code; convert it to safetensors"),
        ("lora.safetensors", b"\x80\x02" + b"0" * 20, "is a pickle"),
        ("lora.safetensors", b"{}", "is not a safetensors file"),
        ("lora.safetensors", None, "no such file"),
        ("../lora.safetensors", b"", "leaves the spec's folder"),
        (".", b"", "has the name of the adapter that is learned"),
    ],
)
def test_an_adapters_file_that_cannot_be_used_is_a_fault_of_the_spec(tmp_path, path, content, reason):
    folder = tmp_path / "spec"
    folder.mkdir()
    if content:
        (folder / path).write_bytes(content)
    text = f"{SHORTEST}generator:\n  adapters: [{{path: {path!r}}}]\n"
    (line,) = fault_lines(folder, text)
    assert reason in line
    assert "generator.adapters.0.path: " in line


def test_a_denoiser_in_a_single_file_is_drawn_with_its_base(tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(saved("flux"))
    with torch.no_grad():
        for parameter in pipeline.transformer.parameters():
            parameter.mul_(1.1)
    file = tmp_path / "tuned.safetensors"
    save_file(pipeline.transformer.state_dict(), file)
    generator = load(model=str(file), base=str(saved("flux")))
    assert torch.equal(generator.render(["a house"], [3]), plain_picture(pipeline, "flux", "a house", 3))


def test_a_whole_pipeline_in_a_single_file_is_drawn_as_from_its_folder(tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(saved("stable-diffusion"))
    with torch.no_grad():
        for parameter in [*pipeline.unet.parameters(), *pipeline.text_encoder.parameters()]:
            parameter.mul_(1.1)
    file = tmp_path / "tuned.safetensors"
    save_as_one_file(pipeline, file)
    generator = load(model=str(file), base=str(saved("stable-diffusion")))
    expected = plain_picture(pipeline, "stable-diffusion", "a house", 3)
    same(generator.render(["a house"], [3]), expected)
    assert (load("stable-diffusion").render(["a house"], [3]) - expected).abs().max() > 1e-3
    weights = load_file(file)
    for start in ("first_stage_model.decoder.conv_in", "model.diffusion_model.out.2"):
        save_file({name: value for name, value in weights.items() if not name.startswith(start)}, file)
        with pytest.raises(UserError) as caught:
            load(model=str(file), base=str(saved("stable-diffusion")))
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_single_file_that_is_a_pickle_is_refused(tmp_path, name):
    file = tmp_path / name
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(
        UserError, match="is a pickle, which can run code; convert it to safetensors"
    ) as caught:
        load(model=str(file), base=str(saved("flux")))
    assert "\n" not in str(caught.value)
