"""The settings of the method's runs: what of a step is random, where it starts, how it moves; examples."""

import json
from pathlib import Path

import diffusers
import pytest
import torch
from small_generator import load
from spec_files import SHORTEST, fault_lines, load_text
from torchvision.transforms.functional import to_tensor
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.drawing import FIRST_HELD_OUT, seed_pool
from dualproc_cli.errors import UserError
from dualproc_cli.generator.renoise import renoised
from dualproc_cli.generator.schedulers import changed_scheduler
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import AdapterSpec, GradientSpec, load_spec
from dualproc_cli.vlm import load_processor

PAPER = Path(__file__).parents[1] / "examples" / "paper"
JUMP = GradientSpec(through="x0-jump")


def test_gaussian_matrices_have_a_deviation_of_one_over_the_rank():
    generator = load("flux")
    generator.add_adapter(AdapterSpec(rank=16, init="gaussian"), seed=0)
    state = generator.adapter_state()
    drawn = torch.cat([value.flatten() for name, value in state.items() if "lora_A" in name])
    assert float(drawn.std()) == pytest.approx(1 / 16, rel=0.02)
    assert not any(value.any() for name, value in state.items() if "lora_B" in name)


@pytest.mark.parametrize(("name", "first"), [("flux", "x_embedder"), ("stable-diffusion", "conv_in")])
def test_a_jump_after_renoising_starts_from_the_picture_with_fresh_noise(name, first):
    generator = load(name, guidance_scale=1.0)
    jump = JUMP.model_copy(update={"renoise": True, "step": 2})
    calls = []
    layer = getattr(generator.denoiser, first)
    layer.register_forward_hook(lambda module, args, output: calls.append(torch.is_grad_enabled()))
    generator.latents(["a house"], [7], gradient=jump)
    # Three steps to the end, one whose output is not used, and the one that carries the gradient.
    assert calls == [False] * 4 + [True]


def test_renoising_mixes_the_picture_with_noise_as_the_step_expects_it():
    picture, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(5)
    flow.step(noise, flow.timesteps[0], picture)  # it stands somewhere else
    sigma = flow.sigmas[2]
    torch.testing.assert_close(renoised(flow, picture, noise, 2), (1 - sigma) * picture + sigma * noise)
    ddim = diffusers.DDIMScheduler()
    ddim.set_timesteps(5)
    alpha = ddim.alphas_cumprod[ddim.timesteps[2]]
    expected = alpha.sqrt() * picture + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(renoised(ddim, picture, noise, 2), expected)
    scm = diffusers.SCMScheduler()
    scm.set_timesteps(2)
    with pytest.raises(UserError, match="SCMScheduler adds no noise to a picture"):
        renoised(scm, picture, noise, 0)


def test_a_random_step_must_be_drawn_first():
    with pytest.raises(ValueError, match="must be drawn"):
        load("flux").render(["a house"], [0], gradient=JUMP)


def test_the_last_step_of_a_jump_is_the_whole_picture():
    generator = load("flux")
    with torch.no_grad():
        plain = generator.render(["a house"], [3])
        jumped = generator.render(["a house"], [3], gradient=JUMP.model_copy(update={"step": "last"}))
    torch.testing.assert_close(plain, jumped, atol=1e-5, rtol=0)


def test_noise_comes_from_its_pool_in_turn(small_spec, tmp_path):
    generator = load("flux")
    generator.add_adapter(AdapterSpec(rank=2), seed=0)

    def drawn(pool, steps=3):
        spec = load_spec(
            small_spec(tmp_path), [f"learn.noise_pool={pool}", "learn.steps=4", "learn.batch_size=2"]
        ).spec
        one = Learner(spec, generator, criterion=None)
        found = []
        for _ in range(steps):
            found += one._draw(2)[1]
            one.metrics.append(type("Entry", (), {"phase": "weights"})())
        return found

    assert drawn("steps") == [*seed_pool(0, 4), *seed_pool(0, 4)[:2]]
    assert drawn(1) == [seed_pool(0, 1)[0]] * 6
    assert drawn(3) == list(seed_pool(0, 3)) * 2
    assert len(set(drawn("fresh"))) == 6
    assert all(0 <= seed < FIRST_HELD_OUT for seed in seed_pool(0, 100))


def test_a_constant_rate_and_adamws_settings_reach_the_optimizer(small_spec, tmp_path):
    generator = load("flux")
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    settings = [
        "learn.schedule=constant",
        "learn.learning_rate=0.01",
        "learn.optimizer={betas: [0.8, 0.95], weight_decay: 0.5}",
    ]
    one = Learner(load_spec(small_spec(tmp_path), settings).spec, generator, criterion=None)
    assert one._schedule.learning_rate(0) == 0.01
    (group,) = one._optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.95), 0.5)


def test_random_steps_are_drawn_from_all(small_spec, tmp_path):
    generator = load("flux")
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    settings = ["learn.gradient.through=x0-jump", "generator.steps=4"]
    (phase,) = Learner(load_spec(small_spec(tmp_path), settings).spec, generator, criterion=None).phases
    rng = torch.Generator().manual_seed(0)
    assert {phase.gradient(rng).step for _ in range(100)} == {1, 2, 3, 4}


def test_a_suffix_ends_every_wording(tmp_path):
    loaded = load_text(
        tmp_path, SHORTEST, "question_suffix=Answer with Yes or No.", "questions.0.paraphrases=['Is it?']"
    )
    (asked,) = [question for question in loaded.spec.asked if question.name != "clean"]
    assert asked.question == "Is the horizon at the red line? Answer with Yes or No."
    assert asked.paraphrases == ("Is it? Answer with Yes or No.",)
    assert loaded.spec.questions[0].question == "Is the horizon at the red line?"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("learn.gradient={step: 1}", "learn.gradient.step: belongs to x0-jump"),
        ("learn.gradient={renoise: true}", "learn.gradient.renoise: belongs to x0-jump"),
        ("learn.gradient={through: x0-jump, step: 2}", "learn.gradient.step: is 2 (expected at most"),
        ("learn.gradient={step: first}", "learn.gradient.step: is"),
        ("learn.noise_pool=all", "learn.noise_pool: is"),
        ("learn.optimizer.betas=[0.9]", "learn.optimizer.betas: has 1 items"),
        ("vlm.processor={size: .inf}", "vlm.processor.size: is"),
    ],
)
def test_settings_that_cannot_be(tmp_path, setting, told):
    (line,) = fault_lines(tmp_path, SHORTEST, setting)
    assert told in line


def test_options_of_the_image_processor(vlm_folder, tmp_path):
    def processor(options):
        spec = load_text(tmp_path, SHORTEST, f"vlm.model={vlm_folder}", f"vlm.processor={options}").spec
        return load_processor(spec.vlm).processor.image_processor

    assert processor("{do_image_splitting: true}").do_image_splitting is True
    with pytest.raises(UserError, match=r"do_image_spliting: .* did you mean 'do_image_splitting'"):
        processor("{do_image_spliting: true}")
    with pytest.raises(UserError, match=r"vlm.processor.device: .* has no such option"):
        processor("{device: cpu}")
    with pytest.raises(UserError, match=r"vlm.processor: .* refuses"):
        processor("{do_image_splitting: sometimes}")


def test_options_of_the_scheduler():
    own = load("stable-diffusion").pipeline.scheduler
    euler = changed_scheduler(own, {"class": "EulerDiscreteScheduler", "timestep_spacing": "trailing"})
    assert type(euler).__name__ == "EulerDiscreteScheduler"
    assert euler.config.timestep_spacing == "trailing"
    with pytest.raises(UserError, match=r"generator.scheduler.class: diffusers has no scheduler Euler;"):
        changed_scheduler(own, {"class": "Euler"})
    with pytest.raises(UserError, match=r"generator.scheduler.clip: DDIMScheduler has no such option"):
        changed_scheduler(own, {"clip": False})


SPECS = sorted(PAPER.glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_papers_controls(path):
    loaded = load_spec(path)
    assert loaded.spec.name == path.stem
    assert f"dualproc learn examples/paper/{path.name}" in loaded.text
    assert (loaded.presets["generator"].name, loaded.presets["vlm"].name) == ("flux-schnell", "idefics")
    assert loaded.spec.question_suffix == "Answer with Yes or No."
    report = json.loads(CliRunner().invoke(app, ["check", "--json", str(path)]).stdout)
    assert report["errors"] == []


def test_the_overlays_are_those_that_are_drawn(monkeypatch):
    monkeypatch.syspath_prepend(PAPER)
    import overlays
    from PIL import Image

    drawn = overlays.overlays()
    assert set(drawn) == {path.name for path in PAPER.glob("*.png")}
    named = {prompt.path for path in SPECS for prompt in load_spec(path).spec.visual_prompts.values()}
    assert named == set(drawn)
    for name, image in drawn.items():
        if name.startswith(("horizon", "palette", "line")):  # letters depend on the installed font
            assert torch.equal(to_tensor(image), to_tensor(Image.open(PAPER / name)))
