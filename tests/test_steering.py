"""Steering: what it costs, that it starts without effect, and that gradients reach it."""

import math
from types import SimpleNamespace

import pytest
import torch
from small_generator import load
from torch import nn

from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator, noise_draw, read_steering, steered_call, write_steering
from dualproc_cli.generator.color_steering import LARGEST, ColorSteering
from dualproc_cli.generator.steering import BUDGET, GRIDS, OFFSET, Inputs, NoiseSteering, Steering, key
from dualproc_cli.generator.wrapping import wrapped
from dualproc_cli.learning.from_answers import open_questions, start_from_answers
from dualproc_cli.spec import GeneratorSpec, GradientSpec, load_spec

PROMPTS, SEEDS = ["a house", "a red tree by the sea"], [3, 4]
SHAPES = {"square": (8, 6, 6), "wide": (4, 4, 8), "frames": (3, 2, 4, 4), "tokens": (24, 5)}


@pytest.fixture
def generator(generator_folder):
    spec = GeneratorSpec(model=str(generator_folder), width=64, height=64, steps=1, guidance_scale=0.0)
    return load_generator(spec, torch.device("cpu"))


def noise_steering(shape, sigma=1.0, aspect=2 / 3):
    return NoiseSteering(Inputs(shape, sigma, aspect, {}), prompt=2)


def disturb(module, seed=0):
    """Give every weight of a module a random value."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            random = torch.Generator().manual_seed(seed + index)
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))


# The noise


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_noise_is_steered_by_what_it_costs(shape):
    steering, sigma = noise_steering(shape, sigma=3.0), 3.0
    noise, prompt = sigma * torch.randn(2, *shape), torch.randn(2, 2)
    same, nats = steering(noise, prompt)
    assert torch.equal(same, noise)
    assert nats.tolist() == [0, 0]
    disturb(steering)
    steered, nats = steering(noise, prompt)
    shift = (steered - noise) / sigma
    applied = shift.square().flatten(1).sum(1) / 2
    assert nats.clamp(max=BUDGET).tolist() == pytest.approx(applied.tolist(), rel=1e-4)
    assert nats.min() > 0


def test_a_picture_gets_no_more_than_the_budget_and_what_is_beyond_is_pulled_back():
    steering = noise_steering((8, 6, 6))
    disturb(steering)
    last = steering.networks[0][-1]
    with torch.no_grad():
        last.bias.mul_(100)
    noise = torch.randn(2, 8, 6, 6)
    steered, nats = steering(noise, torch.zeros(2, 2))
    nats.sum().backward()
    assert nats.min() > 10 * BUDGET
    assert (last.bias.grad * last.bias).sum() > 0
    assert ((steered - noise).square().flatten(1).sum(1) / 2).tolist() == pytest.approx(
        [BUDGET] * 2, rel=1e-3
    )


def test_each_picture_is_steered_by_its_own_noise_and_prompt():
    steering = noise_steering((8, 6, 6))
    disturb(steering)
    noise, prompt = torch.randn(2, 8, 6, 6), torch.randn(2, 2)
    together = steering(noise, prompt)[0]
    alone = torch.cat([steering(noise[one : one + 1], prompt[one : one + 1])[0] for one in (0, 1)])
    torch.testing.assert_close(together, alone)


def test_only_the_coarse_parts_of_the_noise_matter():
    steering = noise_steering((2, 8, 8))
    disturb(steering)
    fine = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 2, 8, 8)  # its mean over every cell is zero
    noise, prompt = torch.randn(1, 2, 8, 8), torch.zeros(1, 2)
    one, other = steering(noise, prompt)[0] - noise, steering(noise + fine, prompt)[0] - noise - fine
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    side = max(GRIDS)
    cells = one.unflatten(3, (side, -1)).unflatten(2, (side, -1))
    assert cells.std((3, 5)).max() < 1e-5


# The colours


def test_colors_keep_flat_areas_flat_and_black_black():
    steering = ColorSteering(prompt=1)
    images, prompt = torch.zeros(2, 3, 8, 8), torch.ones(2, 1)
    images[:, :, 4:] = torch.tensor([0.2, 0.5, 0.3]).view(3, 1, 1)
    assert torch.equal(steering(images, prompt), images)
    disturb(steering)
    found = steering(images, prompt)
    assert torch.equal(found[:, :, :4], images[:, :, :4])
    assert (found[:, :, 4:] - images[:, :, 4:]).abs().min() > 1e-3
    assert found[:, :, 4:].std((2, 3)).max() < 1e-6
    assert (found / images).nan_to_num(1).max() <= math.exp(LARGEST)


# The conditioning


def test_layers_of_an_encoder_share_offsets():
    layer, pooled = torch.zeros(1, 7, 4), torch.zeros(1, 4)
    assert key("text_encoder", layer) == key("text_encoder", torch.zeros(3, 9, 4))
    assert key("text_encoder", layer) != key("text_encoder", pooled)


def test_all_tokens_have_one_offset_and_each_its_own_and_they_cost_their_mean_square():
    inputs = Inputs(None, 1.0, 1.0, {"text-3-2": (2, 2, 2.0), "text-2-1": (0, 1, 1.0)})
    steering = Steering(inputs, ("conditioning",), seed=0)
    assert steering.conditioning_cost() == 0
    every, first = torch.tensor([0.5, 0.1]), torch.tensor([0.2, 0.0])
    steering.offsets["text-3-2"].data = torch.stack([every, first, 0 * first]) / OFFSET
    found = steering.offset("text-3-2", torch.zeros(1, 3, 2))[0]
    torch.testing.assert_close(found, 2 * torch.stack([every + first, every, every]))
    torch.testing.assert_close(steering.offset("text-3-2", torch.zeros(1, 1, 2))[0], found[:1])
    assert torch.equal(steering.offset("another", found), found)
    steering.offsets["text-2-1"].data.fill_(0.3 / OFFSET)
    assert steering.offset("text-2-1", torch.zeros(1, 1)).item() == pytest.approx(0.3)
    assert steering.conditioning_cost().item() == pytest.approx((0.7**2 + 0.5**2 + 2 * 0.1**2 + 0.3**2) / 5)


def test_offsets_begin_at_what_more_words_change():
    inputs = Inputs(None, 1.0, 1.0, {"text-3-2": (3, 2, 2.0), "text-2-1": (0, 1, 0.5)})
    steering = Steering(inputs, ("conditioning",), seed=0)
    plain = {"text-3-2": torch.rand(2, 3, 2), "text-2-1": torch.rand(2, 1)}
    worded = {"text-3-2": torch.rand(2, 3, 2), "text-2-1": torch.rand(2, 1)}
    steering.begin_between(*({key: found.split(1) for key, found in one.items()} for one in (plain, worded)))
    for which, found in plain.items():
        change = (worded[which] - found).mean(0)
        torch.testing.assert_close(steering.offset(which, found), found + change)
    longer = torch.rand(2, 3, 2), torch.rand(2, 4, 2)
    steering = Steering(inputs, ("conditioning",), seed=0)
    twice = {key: [found, found] for key, found in plain.items()}
    steering.begin_between(twice, twice | {"text-3-2": longer})
    change = (longer[0].mean((0, 1)) + longer[1].mean((0, 1))) / 2 - plain["text-3-2"].mean((0, 1))
    found = steering.offset("text-3-2", torch.zeros(1, 5, 2))[0]
    torch.testing.assert_close(found, change.expand(5, 2))
    four, others = ({"text-3-2": [torch.rand(1, 4, 2)]} for _ in range(2))
    steering.begin_between(twice | four, twice | others)
    found, change = (steering.offset("text-3-2", four["text-3-2"][0]), others["text-3-2"][0])
    torch.testing.assert_close(
        found[:, :3], change[:, :3] + steering.scales["text-3-2"] * OFFSET * steering.offsets["text-3-2"][0]
    )


# Through a pipeline


@pytest.mark.parametrize("where", [("noise",), ("conditioning",), ("colors",), ("noise", "conditioning")])
def test_steering_starts_without_effect_and_is_used_inside_the_block_alone(generator, where):
    plain = generator.render(PROMPTS, SEEDS)
    generator.add_steering(where, seed=0)
    with generator.steered():
        assert torch.equal(generator.render(PROMPTS, SEEDS), plain)
        disturb(generator.steering)
        steered = generator.render(PROMPTS, SEEDS)
    assert (steered - plain).abs().max() > 1e-3
    assert torch.equal(generator.render(PROMPTS, SEEDS), plain)
    with generator.steered():
        alone = torch.cat([generator.render([p], [s]) for p, s in zip(PROMPTS, SEEDS, strict=True)])
    torch.testing.assert_close(alone, steered, atol=1e-4, rtol=0)


@pytest.mark.parametrize("where", ["noise", "conditioning", "colors"])
@pytest.mark.parametrize(  # through every step that is drawn
    "gradient",
    [GradientSpec(steps=2), GradientSpec(through="x0-jump", step=1)],
    ids=["last-steps", "x0-jump"],
)
def test_gradient_agrees_with_a_finite_difference(generator, where, gradient):
    generator.spec = generator.spec.model_copy(update={"steps": 2})
    generator.add_steering([where], seed=0)
    disturb(generator.steering)

    def loss():
        with generator.steered():
            return generator.render(PROMPTS, SEEDS, gradient=gradient).double().square().mean()

    parameters = list(generator.steering.parameters())
    slopes = torch.autograd.grad(loss(), parameters, allow_unused=True)
    pairs = [(one, slope) for one, slope in zip(parameters, slopes, strict=True) if slope is not None]
    step = 1e-3
    expected = sum(float(slope.square().sum()) for _, slope in pairs) ** 0.5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for one, slope in pairs:
                one.add_(sign * step * slope / expected)
        values.append(float(loss().detach()))
        with torch.no_grad():
            for one, slope in pairs:
                one.sub_(sign * step * slope / expected)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("losses", "begins"), [((2.0, 1.0), True), ((1.0, 1.0), False)], ids=["better", "no better"]
)
def test_steering_begins_anew_at_the_answers_words_where_the_vlm_prefers_that(
    generator, small_spec, tmp_path, losses, begins
):
    spec = load_spec(small_spec(tmp_path), ["questions.1.alternatives=[day]"]).spec
    assert [question.name for question in open_questions(spec)] == ["night"]
    generator.add_steering(["conditioning"], seed=0)

    def criterion(images, rng):
        loss = torch.tensor(losses[bool(generator.steering.conditioning_cost())])
        return SimpleNamespace(losses={"at-the-line": loss, "night": loss, "clean": 5 - 2 * loss})

    assert start_from_answers(spec, generator, criterion) == begins
    prompts = [*spec.prompts.train, *spec.prompts.train]
    with generator.steered():
        drawn = generator.render(prompts, range(4))
    assert torch.equal(drawn, generator.render(prompts, range(4))) != begins


def test_prompts_are_replaced_by_their_words(generator):
    generator.add_steering(["conditioning"], seed=0)
    generator.steering.words = {PROMPTS[0]: PROMPTS[1]}
    plain = generator.render([PROMPTS[1]] * 2, SEEDS)
    assert not torch.equal(generator.render(PROMPTS, SEEDS), plain)
    with generator.steered():
        assert torch.equal(generator.render(PROMPTS, SEEDS), plain)


def test_latents_are_what_the_pipeline_would_decode(generator):
    latents = generator.latents(PROMPTS, SEEDS)
    expected, _ = generator.call(PROMPTS, SEEDS, steps=1, output_type="latent")
    assert torch.equal(latents, expected)
    assert generator.render(PROMPTS, SEEDS).shape == (2, 3, 64, 64)


def test_noise_that_a_pipeline_draws_without_a_method_is_steered(generator, monkeypatch):
    monkeypatch.setattr(noise_draw, "METHOD", "prepare_something_else")
    plain = generator.render(PROMPTS, SEEDS)
    generator.add_steering(["noise"], seed=0)
    disturb(generator.steering)
    with generator.steered():
        assert (generator.render(PROMPTS, SEEDS) - plain).abs().max() > 1e-3
    assert torch.equal(generator.render(PROMPTS, SEEDS), plain)
    monkeypatch.setattr(noise_draw, "FUNCTION", "draw_something_else")
    with pytest.raises(UserError, match=r"learn\.where: noise: FluxPipeline .* leave noise out"):
        generator.add_steering(["noise"], seed=0)
    generator.add_steering(["conditioning"], seed=0)


@pytest.mark.parametrize("where", [("noise", "conditioning"), ("colors",)])
def test_steering_comes_back_from_its_file(generator, tmp_path, where):
    generator.add_steering(where, seed=0)
    disturb(generator.steering)
    generator.steering.words = {"a house": "a ball"}
    data = write_steering(generator.steering, tmp_path).read_bytes()
    found = read_steering(tmp_path)
    assert (found.inputs, found.where) == (generator.steering.inputs, where)
    assert found.words == generator.steering.words
    kept, again = generator.steering.state_dict(), found.state_dict()
    assert again.keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in again.items())
    assert write_steering(found, tmp_path).read_bytes() == data
    (tmp_path / "steering.safetensors").write_bytes(data[:-1])
    with pytest.raises(UserError, match=r"steering\.safetensors: not the file of a steering, or damaged"):
        read_steering(tmp_path)
    with pytest.raises(UserError, match=r"no such file.*keep_steering"):
        read_steering(tmp_path / "elsewhere")


def test_negative_prompts_are_not_steered():
    """Where guidance needs them, the pictures are those of a pipeline that is given shifted embeddings."""
    generator = load("stable-diffusion", steps=2)
    generator.add_steering(["conditioning"], seed=0)
    disturb(generator.steering)
    with generator.steered():
        steered = generator.render(PROMPTS, SEEDS)
    (name,) = generator.steering.offsets
    pipeline = generator.pipeline
    embeddings, negative = pipeline.encode_prompt(PROMPTS, torch.device("cpu"), 1, True)
    with torch.no_grad():
        embeddings = generator.steering.offset(name, embeddings)
    expected = pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=2,
        guidance_scale=3.0,
        width=64,
        height=64,
        output_type="pt",
    ).images
    torch.testing.assert_close(steered, expected, atol=2e-5, rtol=0)


class Encoder(nn.Module):
    """Returns what it is given, as the last of two layers, beside logits; padding is 9."""

    def forward(self, states, attention_mask=None):
        return {"logits": states + 1, "hidden_states": (0 * states, states)}


def watched(calls, count):
    """Encode ``calls``, each of states and a mask, in a call of ``count`` pictures with offsets of 1."""
    pipeline = SimpleNamespace(components={"text_encoder": Encoder()})
    steering = Steering(Inputs(None, 1.0, 1.0, {"text_encoder-3-2": (1, 2, 1.0)}), ("conditioning",), seed=0)
    steering.offsets["text_encoder-3-2"].data[0] = 1 / OFFSET
    call = steered_call.SteeredCall(pipeline, count, steering)
    with call.watched(), torch.no_grad():
        encoder = pipeline.components["text_encoder"]
        outputs = [
            encoder(states, attention_mask=mask)["hidden_states"][1] - states for states, mask in calls
        ]
    return call, [output[:, 0, 0].tolist() for output in outputs]


def test_prompts_are_steered_however_they_are_encoded():
    states = torch.arange(8.0).view(4, 1, 2)
    together = [(states[:2], None), (states[2:], None)]  # prompts, then negative prompts
    one_by_one = [(row[None], None) for row in states]
    negative_first = [(states, None)]
    assert watched(together, 2)[1] == [[1, 1], [0, 0]]
    assert watched(one_by_one, 2)[1] == [[1], [1], [0], [0]]
    assert watched(negative_first, 2)[1] == [[0, 0, 1, 1]]
    for calls, rows in ((together, states[:2]), (one_by_one, states[:2]), (negative_first, states[2:])):
        assert torch.equal(watched(calls, 2)[0].embeddings["text_encoder-3-2"], rows[:, 0])


def test_padding_does_not_count_for_a_prompt():
    states, mask = torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), torch.tensor([[1, 0]])
    call, _ = watched([(states, mask)], 1)
    assert call.embeddings["text_encoder-3-2"].tolist() == [[1, 2]]


def test_an_exception_restores_what_was_wrapped(generator, monkeypatch):
    generator.add_steering(["noise", "conditioning"], seed=0)
    encoder = generator.pipeline.text_encoder
    forward, plain = encoder.forward, generator.render(PROMPTS, SEEDS)
    with monkeypatch.context() as patch, generator.steered():
        patch.setattr(generator.pipeline.vae, "decode", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generator.render(PROMPTS, SEEDS, gradient=GradientSpec())
    assert encoder.forward is forward
    assert "prepare_latents" not in vars(generator.pipeline)
    assert torch.equal(generator.render(PROMPTS, SEEDS), plain)


def test_channels_may_come_last():
    """As in Kandinsky 5: frames, height, width, channels."""
    first, last = noise_steering((6, 4, 8), aspect=0.5), noise_steering((1, 4, 8, 6), aspect=0.5)
    last.load_state_dict(first.state_dict())
    disturb(first)
    disturb(last)
    noise, prompt = torch.randn(2, 6, 4, 8), torch.randn(2, 2)
    expected = first(noise, prompt)[0].movedim(1, -1)[:, None]
    assert torch.equal(last(noise.movedim(1, -1)[:, None], prompt)[0], expected)


def test_wrapping_is_undone_also_after_an_error():
    layer = nn.Linear(1, 1)
    layer.forward = own = lambda x: x + 1
    with pytest.raises(ZeroDivisionError), wrapped(layer, "forward", lambda original, x: original(x) / 0):
        layer(1.0)
    assert layer.forward is own
    with wrapped(layer, "extra_repr", lambda original: "changed"):
        assert layer.extra_repr() == "changed"
    assert "extra_repr" not in vars(layer)
