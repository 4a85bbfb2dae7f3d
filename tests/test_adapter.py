"""The adapter: a standard LoRA that plain diffusers loads, composes and weighs as we do."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from small_generator import MAKERS, load, make_generator, plain_picture, saved, with_adapter

from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator
from dualproc_cli.generator.adapter import auto_targets
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec

CPU = torch.device("cpu")


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    """The scale was baked into the file's weights, which rounds differently than scaling the update."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.3, 5.0])
@pytest.mark.parametrize("name", ["flux", "stable-diffusion"])
def test_plain_diffusers_draws_the_learned_pictures(tmp_path, name, scale):
    generator = with_adapter(load(name), scale=scale)
    learned = generator.render(["a house"], [3])
    generator.save_adapter(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(saved(name))
    base = plain_picture(pipeline, name, "a house", 3)
    pipeline.load_lora_weights(tmp_path)
    same(plain_picture(pipeline, name, "a house", 3), learned)
    assert (learned - base).abs().max() > 0.01


@pytest.mark.parametrize("name", MAKERS)
def test_a_saved_adapter_draws_the_learned_pictures(tmp_path, name):
    generator = with_adapter(load(name))
    learned = generator.render(["a house"], [3])
    generator.save_adapter(tmp_path)
    sampler = load(name)
    base = sampler.render(["a house"], [3])
    sampler.load_adapters([(tmp_path, 1.0)])
    same(sampler.render(["a house"], [3]), learned)
    with sampler.without_adapter():
        assert torch.equal(sampler.render(["a house"], [3]), base)
    same(sampler.render(["a house"], [3]), learned)
    assert not any(parameter.requires_grad for parameter in sampler.denoiser.parameters())


def test_adapters_compose_as_in_plain_diffusers(tmp_path):
    folders = []
    for seed in (1, 2):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        with_adapter(load(), seed=seed, scale=float(seed)).save_adapter(folders[-1])
    sampler = load()
    sampler.load_adapters([(folders[0], 1.0), (folders[1], -0.4)])
    pipeline = DiffusionPipeline.from_pretrained(saved("flux"))
    pipeline.load_lora_weights(folders[0], adapter_name="one")
    pipeline.load_lora_weights(folders[1], adapter_name="other")
    pipeline.set_adapters(["one", "other"], [1.0, -0.4])
    assert torch.equal(sampler.render(["a tree"], [4]), plain_picture(pipeline, "flux", "a tree", 4))


def test_loaded_adapters_are_drawn_at_another_strength(tmp_path):
    with_adapter(load()).save_adapter(tmp_path)
    sampler, half = load(), load()
    base = sampler.render(["a tree"], [4])
    sampler.load_adapters([(tmp_path, 0.5)])
    half.load_adapters([(tmp_path, 0.25)])
    as_it_is = sampler.render(["a tree"], [4])
    with sampler.at_strength(0.5):
        same(sampler.render(["a tree"], [4]), half.render(["a tree"], [4]))
    with sampler.at_strength(0.0):
        same(sampler.render(["a tree"], [4]), base)
    assert torch.equal(sampler.render(["a tree"], [4]), as_it_is)


def test_an_adapter_at_scale_zero_leaves_the_base_exactly(tmp_path):
    with_adapter(load()).save_adapter(tmp_path)
    sampler = load()
    base = sampler.render(["a tree", "a house"], [4, 5])
    sampler.load_adapters([(tmp_path, 0.0)])
    assert torch.equal(sampler.render(["a tree", "a house"], [4, 5]), base)


def test_a_control_can_be_learned_on_top_of_a_loaded_one(tmp_path):
    with_adapter(load(), seed=1).save_adapter(tmp_path)
    generator = load()
    generator.load_adapters([(tmp_path, 1.0)])
    loaded = generator.render(["a house"], [0])
    generator.add_adapter(AdapterSpec(rank=3), seed=0)
    assert torch.equal(generator.render(["a house"], [0]), loaded)
    trainable = [parameter for parameter in generator.denoiser.parameters() if parameter.requires_grad]
    assert len(trainable) == len(generator.adapter_parameters())
    assert {parameter.shape[0] for parameter in trainable if parameter.shape[1] != 3} == {3}


def test_a_new_adapter_changes_nothing_and_learns(tmp_path):
    generator = load()
    base = generator.render(["a house"], [0])
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    assert torch.equal(generator.render(["a house"], [0]), base)
    optimizer = torch.optim.AdamW(generator.adapter_parameters(), lr=1e-2)
    brightness = []
    for _ in range(5):
        loss = -generator.render(["a house"] * 2, [0, 1], gradient=GradientSpec()).mean()
        brightness.append(-loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert brightness[-1] > brightness[0]
    with generator.without_adapter():
        assert torch.equal(generator.render(["a house"], [0]), base)
    assert all(parameter.requires_grad for parameter in generator.adapter_parameters())
    components = generator.pipeline.components.values()
    trainable = {
        parameter
        for component in components
        if isinstance(component, torch.nn.Module)
        for parameter in component.parameters()
        if parameter.requires_grad
    }
    assert trainable == set(generator.adapter_parameters())


def test_the_base_can_be_drawn_between_the_picture_and_its_gradient():
    generator = with_adapter(load())
    image = generator.render(["a house"], [0], gradient=GradientSpec())
    expected = torch.autograd.grad(image.mean(), generator.adapter_parameters(), retain_graph=True)
    with generator.without_adapter():
        generator.render(["a house"], [0])
    image.mean().backward()
    for parameter, gradient in zip(generator.adapter_parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_an_adapters_start_depends_on_its_seed_alone():
    states = []
    for seed, disturbance in ((7, 0), (7, 1), (8, 0)):
        torch.manual_seed(disturbance)
        generator = load()
        before = torch.get_rng_state()
        generator.add_adapter(AdapterSpec(rank=2), seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(generator.adapter_state())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_state_is_put_back_in_place():
    generator = with_adapter(load(), seed=1)
    parameters, state = generator.adapter_parameters(), generator.adapter_state()
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    generator.load_adapter_state(state)
    assert all(one is other for one, other in zip(parameters, generator.adapter_parameters(), strict=True))
    assert all(torch.equal(tensor, state[key]) for key, tensor in generator.adapter_state().items())
    with pytest.raises(UserError, match="another adapter"):
        generator.load_adapter_state({key: tensor[:1] for key, tensor in state.items()})
    with pytest.raises(UserError, match="another adapter"):
        generator.load_adapter_state({})


def test_adapter_weights_are_float32_whatever_the_base():
    generator = load(dtype="bfloat16")
    assert generator.denoiser.dtype == torch.bfloat16
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    assert {parameter.dtype for parameter in generator.adapter_parameters()} == {torch.float32}
    images = generator.render(["a house"], [0], gradient=GradientSpec())
    assert images.dtype == torch.float32
    images.mean().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in generator.adapter_parameters())


def test_auto_adapts_attention_and_feed_forward_projections():
    targets = auto_targets(load().denoiser)
    double, single = "transformer_blocks.0.", "single_transformer_blocks.1."
    for name in ("attn.to_q", "attn.to_out.0", "attn.add_k_proj", "ff.net.0.proj", "ff_context.net.2"):
        assert double + name in targets
    for name in ("attn.to_v", "proj_mlp", "proj_out"):
        assert single + name in targets
    assert not [name for name in targets if "norm" in name or "embed" in name or name == "proj_out"]
    unet = auto_targets(load("stable-diffusion").denoiser)
    assert "mid_block.attentions.0.transformer_blocks.0.attn2.to_k" in unet
    assert not [name for name in unet if "time_emb" in name]


def test_named_modules_are_adapted_and_unknown_ones_refused():
    generator = load()
    generator.add_adapter(AdapterSpec(rank=2, target_modules=("attn.to_q", "proj_mlp")), seed=0)
    assert {key.split(".lora_")[0].split(".", 2)[2] for key in generator.adapter_state()} == {
        "attn.to_q",
        "proj_mlp",
    }
    with pytest.raises(UserError, match=r"learn\.adapter\.target_modules") as caught:
        load().add_adapter(AdapterSpec(target_modules=("nothing",)), seed=0)
    assert "\n" not in str(caught.value)


def test_the_scale_is_in_the_tensors_and_alpha_is_the_rank_and_bytes_repeat(tmp_path):
    generator = with_adapter(load(), scale=2.5)
    path = generator.save_adapter(tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["lora_adapter_metadata"])
    assert (metadata["rank"], metadata["alpha"]) == ("2", "2")
    assert (config["transformer.r"], config["transformer.lora_alpha"]) == (2, 2)
    stored, learned = AdapterFile.read(tmp_path).tensors, generator.adapter_state()
    assert {key: 2.5 if ".lora_B." in key else 1.0 for key in stored} == {
        key: (stored[key] / learned[key]).mean().item() for key in stored
    }
    assert AdapterFile.read(tmp_path).type == "lora"
    data = path.read_bytes()
    for _ in range(5):
        assert AdapterFile.read(tmp_path).write(tmp_path).read_bytes() == data


def test_an_adapter_made_for_another_generator_is_refused(tmp_path):
    with_adapter(load()).save_adapter(tmp_path)
    wide = load_generator(
        GeneratorSpec(model=str(make_generator(tmp_path / "wide", width=32)), width=64, height=64, steps=1),
        CPU,
    )
    for other in (load("stable-diffusion"), load("pixart"), wide):
        before = other.render(["a house"], [0])
        with pytest.raises(UserError, match="made for another generator") as caught:
            other.load_adapters([(tmp_path, 1.0)])
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert torch.equal(other.render(["a house"], [0]), before)


def change(path: Path, edit) -> None:
    """Edit the tensors of an adapter file, not its metadata."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    edit(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "not a readable safetensors file"),
        (
            lambda path: save_file({"transformer.x.lora_A.weight": torch.zeros(1)}, path),
            "do not give the rank",
        ),
        (
            lambda path: change(path, lambda tensors: tensors.popitem()),
            "not those of a lora adapter",
        ),
        (
            lambda path: change(path, lambda tensors: tensors.update(x=torch.zeros(1))),
            "do not give the rank",
        ),
        (  # of another type of adapter
            lambda path: change(
                path, lambda tensors: tensors.update({"transformer.x.lora_magnitude_vector": torch.ones(4)})
            ),
            "not those of a lora",
        ),
        (
            lambda path: change(path, lambda tensors: [tensor.resize_(1, 1) for tensor in tensors.values()]),
            "not those of a lora adapter",
        ),
    ],
)
def test_spoiled_files_are_refused(tmp_path, spoil, message):
    spoil(with_adapter(load()).save_adapter(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        AdapterFile.read(Path(tmp_path))
    assert "\n" not in str(caught.value)
