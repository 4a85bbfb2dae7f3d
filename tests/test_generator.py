"""The generator: pictures equal to plain diffusers', exact gradients, one encoding a prompt."""

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from small_generator import MAKERS, load, plain_picture, saved, with_adapter

from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator
from dualproc_cli.memory.strategies import named
from dualproc_cli.spec import AdapterSpec, GradientSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_are_those_of_the_plain_pipeline(name):
    generator = load(name)
    expected = plain_picture(DiffusionPipeline.from_pretrained(saved(name)), name, "a red house", 7)
    assert expected.std() > 0.01
    assert torch.equal(generator.render(["a red house"], [7]), expected)
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    with_graph = generator.render(["a red house"], [7], gradient=GradientSpec(steps=2))
    assert with_graph.requires_grad
    assert torch.equal(with_graph, expected)


@pytest.mark.parametrize("name", MAKERS)
def test_a_picture_does_not_depend_on_its_batch(name):
    generator = load(name)
    prompts, seeds = ["a house", "a red tree by the sea", "a house"], [3, 4, 5]
    together = generator.render(prompts, seeds)
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        torch.testing.assert_close(generator.render([prompt], [seed])[0], together[index], atol=2e-5, rtol=0)


def test_steps_override_the_specs():
    expected = plain_picture(FluxPipeline.from_pretrained(saved("flux")), "flux", "a lamp", 1, steps=2)
    assert torch.equal(load().render(["a lamp"], [1], steps=2), expected)


def test_a_stochastic_scheduler_draws_from_the_pictures_own_seed():
    generator = load()
    generator.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    pictures = [generator.render(["a house"], [seed]) for seed in (1, 1, 2)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def unrolled_flux(
    generator: Generator, prompt: str, seed: int, recorded: set[int], jump: int | None
) -> torch.Tensor:
    """Flux's sampling written out: Euler steps from sigma 1 to 0, a graph in ``recorded`` steps."""
    pipe, steps = generator.pipeline, generator.spec.steps
    embeds, pooled, text_ids = pipe.encode_prompt([prompt], None, max_sequence_length=8)
    noise = [torch.Generator().manual_seed(seed)]
    latents, image_ids = pipe.prepare_latents(1, 8, 64, 64, embeds.dtype, CPU, noise)
    sigmas = [*torch.linspace(1, 1 / steps, steps).tolist(), 0.0]
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
    decoded = pipe.vae.decode(
        pipe._unpack_latents(latents, 64, 64, pipe.vae_scale_factor), return_dict=False
    )[0]
    return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("gradient", "recorded", "jump"),
    [
        (GradientSpec(through="last-steps", steps=1), {2}, None),
        (GradientSpec(through="last-steps", steps=2), {1, 2}, None),
        (GradientSpec(through="last-steps", steps=9), {0, 1, 2}, None),
        (GradientSpec(through="x0-jump", step=1), {0}, 0),
        (GradientSpec(through="x0-jump", step=2), {1}, 1),
    ],
)
def test_gradients_are_those_of_the_sampling_written_out(gradient, recorded, jump):
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


class DoubleEuler(FlowMatchEulerDiscreteScheduler):
    """Euler steps in the latents' own precision; diffusers' class rounds them to single precision."""

    def step(self, model_output, timestep, sample, return_dict=True):
        if self.step_index is None:
            self._init_step_index(timestep)
        distance = self.sigmas[self.step_index + 1] - self.sigmas[self.step_index]
        self._step_index += 1
        return (sample + distance * model_output,)


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_gradient_matches_finite_differences(name):
    generator = with_adapter(load(name, steps=2))
    # In double precision a step too small to cross the kinks of ReLUs is not lost to rounding.
    generator.pipeline.to(torch.float64)
    parameters = generator.adapter_parameters()
    for parameter in parameters:
        parameter.data = parameter.data.double()
    if name == "flux":
        generator.pipeline.scheduler = DoubleEuler.from_config(generator.pipeline.scheduler.config)
    noise = torch.Generator().manual_seed(1)
    directions = [torch.randn(parameter.shape, generator=noise).double() for parameter in parameters]
    weights = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()

    def loss(gradient: GradientSpec | None = None) -> torch.Tensor:
        images, _ = generator.call(["a house"], [2], gradient=gradient, steps=2)
        assert images.dtype == torch.float64
        return (images * weights).sum()

    gradients = torch.autograd.grad(loss(GradientSpec(steps=2)), parameters)
    slope = sum((one * other).sum() for one, other in zip(gradients, directions, strict=True))
    start = [parameter.detach().clone() for parameter in parameters]
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, value, direction in zip(parameters, start, directions, strict=True):
                parameter.copy_(value + step * direction)
            ends.append(loss())
    difference = (ends[0] - ends[1]) / 2e-5
    assert slope.abs() > 1
    # Flux's rotary embedding computes in single precision, which moves the slope by some 1e-4.
    torch.testing.assert_close(slope, difference, rtol=2e-3, atol=0)


def test_an_x0_jump_skips_the_rest_of_the_way():
    generator = with_adapter(load(steps=5))
    calls = []
    generator.denoiser.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    plain_forward = type(generator.denoiser).forward
    work = []
    generator.denoiser.transformer_blocks[0].register_forward_hook(lambda *_: work.append(1))
    generator.render(["a house"], [0], gradient=GradientSpec(through="x0-jump", step=2))
    assert len(work) == 2
    assert calls[:2] == [False, True]
    assert type(generator.denoiser).forward is plain_forward
    assert "forward" not in vars(generator.denoiser)


def test_an_exception_restores_gradients_and_scheduler(monkeypatch):
    generator = load()
    monkeypatch.setattr(generator.pipeline.vae, "decode", lambda *_, **__: 1 / 0)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            with pytest.raises(ZeroDivisionError):
                generator.render(["a house"], [0], gradient=GradientSpec())
            assert torch.is_grad_enabled() is enabled
    assert not {"step", "set_timesteps"} & vars(generator.pipeline.scheduler).keys()


@pytest.mark.parametrize("name", MAKERS)
def test_each_prompt_is_encoded_once(name):
    generator = load(name)
    work = []
    modules = generator.pipeline.text_encoder.modules()
    attention = next(module for module in modules if type(module).__name__.endswith("Attention"))
    attention.register_forward_hook(lambda *_: work.append(1))
    generator.render(["a house", "a tree", "a house"], [0, 1, 2])
    first = len(work)
    assert first > 0
    generator.render(["a tree", "a house"], [3, 4])
    assert len(work) == first
    generator.render(["a lamp"], [3])
    assert len(work) == first + 1


@pytest.mark.parametrize("names", [(), ("checkpoint-denoiser",)])
def test_compiled_blocks_draw_and_learn_the_same(names, monkeypatch):
    compiled = []

    def compile_eagerly(forward):
        compiled.append(forward)
        return torch._dynamo.optimize("eager")(forward)

    monkeypatch.setattr(torch, "compile", compile_eagerly)

    def drawn(**changes):
        generator = load(**changes)
        for strategy in named(names):
            strategy.apply(generator, ["a house"])
        generator.add_adapter(AdapterSpec(rank=2), seed=0)
        images = generator.render(["a red house"], [7], gradient=GradientSpec())
        images.square().mean().backward()
        return [images, *(parameter.grad for parameter in generator.adapter_parameters())]

    plain = drawn()
    assert not compiled
    for one, other in zip(plain, drawn(compile=True), strict=True):
        assert torch.equal(one, other)
    kinds = {type(forward.__self__).__name__ for forward in compiled}
    assert kinds == {"FluxTransformerBlock", "FluxSingleTransformerBlock"}


def test_a_denoiser_without_repeated_blocks_is_not_compiled(monkeypatch):
    monkeypatch.setattr(FluxTransformer2DModel, "_repeated_blocks", None)
    with pytest.raises(UserError, match="FluxTransformer2DModel does not name its repeated blocks"):
        load(compile=True)
