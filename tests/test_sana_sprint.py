"""SANA-Sprint: its scheduler lists a boundary that is not a step, its decoder reads the clean estimate."""

import pytest
import torch
from autoencoders import dc
from diffusers import SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from small_generator import TOKENS, make_tokenizer
from transformers import Gemma2Config, Gemma2Model

from dualproc_cli.generator import load_generator
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
        qk_norm="rms_norm_across_heads",
        guidance_embeds=True,
    )
    vae = dc()
    encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=8,
            head_dim=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )
    path = tmp_path_factory.mktemp("sana-sprint")
    SanaSprintPipeline(tokenizer, encoder.eval(), vae, transformer, SCMScheduler()).save_pretrained(path)
    return path


@pytest.fixture
def generator(folder):
    spec = GeneratorSpec(model=str(folder), width=32, height=32, steps=2, guidance_scale=4.5)
    return load_generator(spec, torch.device("cpu"))


def test_pictures_are_those_of_the_plain_pipeline(generator, folder):
    pipeline = SanaSprintPipeline.from_pretrained(folder)
    expected = pipeline(
        ["a house"],
        generator=[torch.Generator().manual_seed(1)],
        num_inference_steps=2,
        guidance_scale=4.5,
        width=32,
        height=32,
        output_type="pt",
        use_resolution_binning=False,
        max_sequence_length=TOKENS,
    ).images
    assert torch.equal(generator.render(["a house"], [1]), expected)


def test_the_boundary_is_not_a_step(generator):
    assert generator.conventions.idle_timesteps == 1
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    recorded = []
    generator.denoiser.register_forward_hook(lambda *_: recorded.append(torch.is_grad_enabled()))
    generator.render(["a house"], [1], gradient=GradientSpec(steps=1))
    assert recorded == [False, True]


def test_a_jump_from_the_last_step_is_the_picture_itself(generator):
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    picture = generator.render(["a house"], [1])
    last = generator.render(["a house"], [1], gradient=GradientSpec(through="x0-jump", step=2))
    first = generator.render(["a house"], [1], gradient=GradientSpec(through="x0-jump", step=1))
    assert torch.equal(last, picture)
    assert not torch.equal(first, picture)
    gradients = torch.autograd.grad(first.mean(), generator.adapter_parameters())
    assert any(gradient.abs().max() > 0 for gradient in gradients)
