"""Every generator family through the same path as a hub model: pictures, gradients, adapter."""

import functools
import inspect

import pytest
import torch
from checks import (
    LAST,
    WHOLE,
    assert_same,
    check_differences,
    check_jump,
    check_last_step,
    check_steering,
    gradients,
    moved,
    picture,
)
from diffusers import DiffusionPipeline
from every import FAMILIES
from families import SEED, STEPS, adapted, load, plain_picture, saved
from peft import inject_adapter_in_model, set_peft_model_state_dict
from torch import nn

from dualproc_cli.generator import adapter
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.checkpointing import checkpoint_blocks
from dualproc_cli.generator.workarounds import CALL_ARGUMENTS
from dualproc_cli.spec import GradientSpec

ALWAYS = ("Flux", "StableDiffusion", "Sana", "PRXPixel", "HunyuanDiT")  # the others with -m matrix
# Their last step ends at the clean estimate.
STRAIGHT = ("FlowMatchEulerDiscreteScheduler", "SCMScheduler", "LCMScheduler")
# In diffusers 0.42 they have the method, and it raises; peft injects the adapter.
NO_LORA_LOADING = {
    "PRX": "its load_lora_weights looks for a unet, which it has not: peft injects the adapter",
    "Kandinsky3": "its load_lora_weights needs a method that its unet lacks: peft injects the adapter",
}
# How far pictures may differ that are the same but for rounding.
ROUNDING = 2e-6
# Its noise schedule and guidance amplify: where a layer's last bit differs, which depends on the processor,
# the picture does by 1.4e-4.
AMPLIFIED = {"Kandinsky3": 5e-4}

pytestmark = pytest.mark.recorded("generator")
# Loaded once a family: no test leaves anything that changes what they draw.
learned = functools.lru_cache(maxsize=1)(adapted)
plain = functools.lru_cache(maxsize=1)(load)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in ALWAYS else pytest.mark.matrix) for name in FAMILIES],
)
def family(request):
    """The name of one of `FAMILIES`; pytest runs all tests of one before the next."""
    return request.param


@pytest.fixture(autouse=True)
def workarounds(family, record_property):
    generator = learned(family)
    takes = inspect.signature(type(generator.pipeline).__call__).parameters
    arguments = [f"{name}={value}" for name, value in CALL_ARGUMENTS.items() if name in takes]
    alone = [] if generator.conventions.batches else ["one picture at a time"]
    record_property(
        "workarounds", [*(workaround.name for workaround in generator.workarounds), *alone, *arguments]
    )


def test_images(family):
    expected = plain_picture(DiffusionPipeline.from_pretrained(saved(family)), family)
    assert expected.std() > 0.01
    generator, atol = plain(family), AMPLIFIED.get(family, ROUNDING)
    torch.testing.assert_close(picture(generator), expected, atol=atol, rtol=0)
    generator = learned(family)
    with generator.without_adapter():
        torch.testing.assert_close(picture(generator), expected, atol=atol, rtol=0)
    assert (picture(generator) - expected).abs().max() > 1e-3


def test_16_bits(family):
    """In bfloat16 too, the picture is diffusers' own, and a gradient reaches the adapter.

    Where diffusers encodes a prompt in one batch with the negative one, which the cache does not, it is so up
    to one step of rounding.
    """
    pipeline = DiffusionPipeline.from_pretrained(saved(family), torch_dtype=torch.bfloat16)
    generator = adapted(family, dtype="bfloat16")
    with generator.without_adapter():
        torch.testing.assert_close(picture(generator), plain_picture(pipeline, family), atol=2**-8, rtol=0)
    for way in (WHOLE, LAST):
        images = picture(generator, way)
        assert torch.equal(images.detach(), picture(generator))
        slopes = gradients(generator, images)
        assert all(slope.isfinite().all() for slope in slopes.values())
        assert any(slope.any() for slope in slopes.values())


def test_batches(family):
    generator = plain(family)
    prompts, seeds = ["a ball", "a red tree by the sea and a blue ball in a house"], [3, 4]
    together = generator.render(prompts, seeds)
    alone = [generator.render([prompt], [seed]) for prompt, seed in zip(prompts, seeds, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_gradients(family):
    generator = learned(family)
    images = picture(generator, WHOLE)
    assert torch.equal(images.detach(), picture(generator))
    slopes = gradients(generator, images)
    assert all(gradient.isfinite().all() for gradient in slopes.values())
    dead = [name for name, gradient in slopes.items() if not gradient.any()]
    tensors = adapter.tensors(generator.denoiser, "learned")
    with moved(tensors, {name: torch.ones_like(tensors[name]) for name in dead}, torch.ones(())):
        assert torch.equal(picture(generator), images.detach()), f"no gradient reaches {dead}"
    assert len(dead) < len(slopes) / 2


def test_finite_differences(family):
    check_differences(learned(family))


def test_last_steps(family):
    check_last_step(learned(family))


def test_x0_jump(family):
    generator = learned(family)
    check_jump(generator)
    if type(generator.pipeline.scheduler).__name__ in STRAIGHT:
        last = picture(generator, GradientSpec(through="x0-jump", step=STEPS))
        torch.testing.assert_close(last.detach(), picture(generator), atol=1e-4, rtol=0)


def test_steered_noise(family):
    check_steering(plain(family), "noise")


def test_steered_conditioning(family):
    check_steering(plain(family), "conditioning")


def test_prompts_are_encoded_once(family):
    generator = plain(family)
    work, hooks = [], []
    for name, part in generator.pipeline.components.items():
        if name.startswith("text_encoder") and isinstance(part, nn.Module):
            layer = next(module for module in part.modules() if not list(module.children()))
            hooks.append(layer.register_forward_hook(lambda *_: work.append(1)))
    generator.render(["a blue tree"], [SEED])
    first = len(work)
    generator.render(["a blue tree"], [SEED])
    for hook in hooks:
        hook.remove()
    assert len(work) == first


def test_checkpointing(family):
    generator = learned(family)
    images = picture(generator, WHOLE)
    expected = gradients(generator, images)
    generator = adapted(family)
    checkpoint_blocks(generator.denoiser)
    again = picture(generator, WHOLE)
    assert torch.equal(again.detach(), images.detach())
    assert_same(gradients(generator, again), expected)


def test_adapter(family, tmp_path, record_property):
    generator = learned(family)
    generator.save_adapter(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(saved(family))
    if family in NO_LORA_LOADING:
        record_property("reason", NO_LORA_LOADING[family])
        with pytest.raises(AttributeError):
            pipeline.load_lora_weights(tmp_path)
        inject(pipeline, tmp_path)
    elif hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(tmp_path)
    else:
        inject(pipeline, tmp_path)
    torch.testing.assert_close(plain_picture(pipeline, family), picture(generator), atol=ROUNDING, rtol=0)


def inject(pipeline, folder):
    """Load an adapter into a pipeline that cannot do it, with peft and the file's metadata alone."""
    file = AdapterFile.read(folder)
    denoiser = getattr(pipeline, file.component)
    inject_adapter_in_model(file.config, denoiser, "default")
    set_peft_model_state_dict(denoiser, file.tensors, "default")
