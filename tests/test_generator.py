"""The generator: pictures equal to plain diffusers', exact gradients, the memo, the self-test, bad models."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline
from small_generator import make_generator, make_pixart, make_stable_diffusion

from dualproc_cli.device import pick_device, pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator, load_generator, self_test
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec

CPU = torch.device("cpu")
MAKERS = {"flux": make_generator, "stable-diffusion": make_stable_diffusion, "pixart": make_pixart}
ARGUMENTS = {
    "flux": {"max_sequence_length": 8},
    "stable-diffusion": {},
    "pixart": {"max_sequence_length": 8, "use_resolution_binning": False, "clean_caption": False},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture
def load(models):
    def load(name: str = "flux", **changes) -> Generator:
        settings = {"width": 64, "height": 64, "steps": 3, "guidance_scale": 3.0, **changes}
        return load_generator(GeneratorSpec(model=str(models[name]), **settings), CPU)

    return load


def with_adapter(generator: Generator, seed: int = 0, scale: float = 2.0) -> Generator:
    """Add an adapter and give it an effect."""
    generator.add_adapter(AdapterSpec(rank=2, scale=scale), seed)
    noise = torch.Generator().manual_seed(seed)
    for parameter in generator.adapter_parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=noise)
    return generator


def plain_picture(pipeline: DiffusionPipeline, name: str, prompt: str, seed: int, steps: int = 3) -> torch.Tensor:
    """What diffusers draws when a user calls it."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=[prompt],
        generator=[torch.Generator().manual_seed(seed)],
        num_inference_steps=steps,
        guidance_scale=3.0,
        width=64,
        height=64,
        output_type="pt",
        **ARGUMENTS[name],
    ).images


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_are_those_of_the_plain_pipeline(load, models, name):
    generator = load(name)
    expected = plain_picture(DiffusionPipeline.from_pretrained(models[name]), name, "a red house", 7)
    assert expected.std() > 0.01
    assert torch.equal(generator.render(["a red house"], [7]), expected)
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    with_graph = generator.render(["a red house"], [7], gradient=GradientSpec(steps=2))
    assert with_graph.requires_grad
    assert torch.equal(with_graph, expected)


@pytest.mark.parametrize("name", MAKERS)
def test_a_picture_does_not_depend_on_its_batch(load, name):
    generator = load(name)
    prompts, seeds = ["a house", "a red tree by the sea", "a house"], [3, 4, 5]
    together = generator.render(prompts, seeds)
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        torch.testing.assert_close(generator.render([prompt], [seed])[0], together[index], atol=2e-5, rtol=0)


def test_steps_override_the_specs(load, models):
    expected = plain_picture(FluxPipeline.from_pretrained(models["flux"]), "flux", "a lamp", 1, steps=2)
    assert torch.equal(load().render(["a lamp"], [1], steps=2), expected)


def test_a_stochastic_scheduler_draws_from_the_pictures_own_seed(load):
    generator = load()
    generator.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    pictures = [generator.render(["a house"], [seed]) for seed in (1, 1, 2)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def unrolled_flux(generator: Generator, prompt: str, seed: int, recorded: set[int], jump: int | None) -> torch.Tensor:
    """Flux's sampling written out: Euler steps from sigma 1 to 0, a graph in ``recorded`` steps, a jump after one."""
    pipe, steps = generator.pipeline, generator.spec.steps
    embeds, pooled, text_ids = pipe.encode_prompt([prompt], None, max_sequence_length=8)
    noise = [torch.Generator().manual_seed(seed)]
    latents, image_ids = pipe.prepare_latents(1, 8, 64, 64, embeds.dtype, CPU, noise)
    sigmas = torch.linspace(1, 1 / steps, steps).tolist() + [0.0]
    for index in range(steps):
        with torch.set_grad_enabled(index in recorded):
            velocity = pipe.transformer(
                hidden_states=latents,
                timestep=torch.tensor([sigmas[index]]),
                pooled_projections=pooled,
                encoder_hidden_states=embeds,
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0]
            following = 0.0 if index == jump else sigmas[index + 1]
            latents = latents + (following - sigmas[index]) * velocity
        if index == jump:
            break
    decoded = pipe.vae.decode(pipe._unpack_latents(latents, 64, 64, pipe.vae_scale_factor), return_dict=False)[0]
    return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("gradient", "recorded", "jump"),
    [
        (GradientSpec(through="last-steps", steps=1), {2}, None),
        (GradientSpec(through="last-steps", steps=2), {1, 2}, None),
        (GradientSpec(through="last-steps", steps=9), {0, 1, 2}, None),
        (GradientSpec(through="x0-jump", steps=1), {0}, 0),
        (GradientSpec(through="x0-jump", steps=2), {1}, 1),
    ],
)
def test_gradients_are_those_of_the_sampling_written_out(load, gradient, recorded, jump):
    generator = with_adapter(load())
    images = generator.render(["a blue ball"], [5], gradient=gradient)
    expected = unrolled_flux(generator, "a blue ball", 5, recorded, jump)
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=1e-4)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    parameters = generator.adapter_parameters()
    ours = torch.autograd.grad((images * weights).sum(), parameters)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-4 * other.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_gradient_matches_finite_differences(load, name):
    generator = with_adapter(load(name, steps=2))
    parameters = generator.adapter_parameters()
    directions = [torch.randn_like(parameter) for parameter in parameters]
    weights = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def loss(gradient: GradientSpec | None = None) -> torch.Tensor:
        return (generator.render(["a house"], [2], gradient=gradient) * weights).double().sum()

    gradients = torch.autograd.grad(loss(GradientSpec(steps=2)), parameters)
    slope = sum((one * other).double().sum() for one, other in zip(gradients, directions, strict=True))
    ends = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
            ends.append(loss())
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=step)
    difference = (ends[0] - ends[1]) / 2e-3
    assert slope.abs() > 1e-2
    torch.testing.assert_close(slope, difference, rtol=2e-2, atol=0)


def test_an_x0_jump_skips_the_rest_of_the_way(load):
    generator = with_adapter(load(steps=5))
    calls = []
    generator.denoiser.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    plain_forward = type(generator.denoiser).forward
    work = []
    generator.denoiser.transformer_blocks[0].register_forward_hook(lambda *_: work.append(1))
    generator.render(["a house"], [0], gradient=GradientSpec(through="x0-jump", steps=2))
    assert len(work) == 2
    assert calls[:2] == [False, True]
    assert type(generator.denoiser).forward is plain_forward
    assert "forward" not in vars(generator.denoiser)


def test_an_exception_restores_gradients_and_scheduler(load, monkeypatch):
    generator = load()
    monkeypatch.setattr(generator.pipeline.vae, "decode", lambda *_, **__: 1 / 0)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            with pytest.raises(ZeroDivisionError):
                generator.render(["a house"], [0], gradient=GradientSpec())
            assert torch.is_grad_enabled() is enabled
    assert not {"step", "set_timesteps"} & vars(generator.pipeline.scheduler).keys()


@pytest.mark.parametrize("name", MAKERS)
def test_each_prompt_is_encoded_once(load, name):
    generator = load(name)
    layer = next(iter(generator.pipeline.text_encoder.modules()))
    work = []
    embedding = next(module for module in layer.modules() if isinstance(module, torch.nn.Embedding))
    embedding.register_forward_hook(lambda *_: work.append(1))
    generator.render(["a house", "a tree", "a house"], [0, 1, 2])
    first = len(work)
    assert first > 0
    generator.render(["a tree", "a house"], [3, 4])
    assert len(work) == first
    generator.render(["a lamp"], [3])
    assert len(work) == first + 1


def test_tensors_between_minus_one_and_one_are_recognised(load):
    generator = load()
    expected = generator.render(["a house"], [1])
    processor = generator.pipeline.image_processor
    own = processor.postprocess
    processor.postprocess = lambda image, output_type: image if output_type == "pt" else own(image, output_type)
    generator.conventions = self_test.measure(generator)
    assert generator.conventions.low == -1
    torch.testing.assert_close(generator.render(["a house"], [1]), expected)
    processor.postprocess = lambda image, output_type: 7 * image if output_type == "pt" else own(image, output_type)
    with pytest.raises(UserError, match="neither"):
        self_test.measure(generator)


def test_the_self_test_names_weights_without_gradient(load):
    generator = load()
    broken = generator.denoiser.single_transformer_blocks[0].proj_mlp
    broken.forward = torch.no_grad()(broken.forward)
    with pytest.raises(UserError, match=r"no gradient reaches 2 .*single_transformer_blocks\.0\.proj_mlp\.lora_A"):
        generator.add_adapter(AdapterSpec(rank=2), seed=0)


def test_the_self_test_forgives_weights_that_do_not_matter(load):
    generator = load()
    generator.denoiser.unused = torch.nn.Linear(4, 4)
    generator.add_adapter(AdapterSpec(rank=2, target_modules=("unused", "to_q")), seed=0)
    assert any(key.startswith("unused.") for key in generator.adapter_state())


def test_a_pipeline_that_draws_nothing_from_a_prompt_is_refused(load, monkeypatch):
    generator = load()
    monkeypatch.setattr(generator.pipeline.vae, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match="draws no picture of 64 x 64 from a prompt .division by zero"):
        self_test.measure(generator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "./nowhere"}, "no such folder"),
        ({"quantization": "nf4"}, "needs a CUDA device"),
        ({"quantization": "int8"}, "set it to none"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(changes, message):
    spec = GeneratorSpec(**{"model": "./nowhere", "width": 64, "height": 64, **changes})
    with pytest.raises(UserError, match=message) as caught:
        load_generator(spec, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "expected a diffusers text-to-image pipeline"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "expected a diffusers text-to-image pipeline"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}'),
            "NoSuchPipeline",
        ),
        (
            lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged"),
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
