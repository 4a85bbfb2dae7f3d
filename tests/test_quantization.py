"""Frozen weights stay at 8 bits, and adapters that were learned on them work on full weights."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from dualproc_cli.compiler import compile_loss
from dualproc_cli.errors import UserError
from dualproc_cli.generator import build_generator, load_generator
from dualproc_cli.learning.learner import Learner
from dualproc_cli.memory import estimate_learning, plan_learning
from dualproc_cli.memory.strategies import named
from dualproc_cli.miniature import generator_folder
from dualproc_cli.models.quantization import (
    BITSANDBYTES_INT8,
    BITSANDBYTES_NF4,
    TORCHAO_INT8,
    quantization,
    quantize,
)
from dualproc_cli.spec import load_spec

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = Path(__file__).parent.parent / "specs/horizon-position.yaml"
PROMPT = ["a house in a field"]


@pytest.fixture(scope="module")
def loaded():
    return load_spec(SPEC, ["learn.where=[weights]", "learn.batch_size=2"])


@pytest.fixture(scope="module")
def quantized(loaded):
    plan = plan_learning(load_spec(SPEC, ["memory=[int8]"]), CPU)
    return plan.load_generator(), plan.load_vlm()


def size_of(module):
    """Return the bytes of a module's parameters, those of 8 bits with their scales."""
    parts = [
        part
        for weight in module.parameters()
        for part in ((weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,))
    ]
    return sum(part.numel() * part.element_size() for part in parts)


def test_linear_layers_have_8_bits_and_pictures_hardly_change(loaded, quantized):
    generator, _ = quantized
    linear = [m for m in generator.denoiser.modules() if isinstance(m, nn.Linear)]
    assert {layer.weight.qdata.dtype for layer in linear} == {torch.int8}
    whole = load_generator(loaded.spec.generator, CPU)
    difference = (generator.render(PROMPT, [1]) - whole.render(PROMPT, [1])).abs()
    assert 0 < difference.mean() < 0.01


def test_the_estimate_predicts_their_size(loaded, quantized):
    generator, vlm = quantized
    parts = estimate_learning(loaded, CPU, named(["int8"])).parts
    assert parts["denoiser"] == pytest.approx(size_of(generator.denoiser), rel=0.05)
    assert parts["vlm"] == pytest.approx(size_of(vlm.model), rel=0.05)


def test_what_is_learned_on_8_bits_works_on_full_weights(loaded, quantized, tmp_path):
    generator, vlm = quantized
    generator.add_adapter(loaded.spec.learn.adapter, 0)
    learner = Learner(loaded.spec, generator, compile_loss(loaded, vlm, 64, 64))
    for _ in range(3):
        assert learner.step().gradient_norm > 0
    generator.save_adapter(tmp_path)
    whole = load_generator(loaded.spec.generator, CPU)
    before = whole.render(PROMPT, [1])
    whole.load_adapters([(tmp_path, 1.0)])
    moved = whole.render(PROMPT, [1]) - before
    with generator.without_adapter():
        before = generator.render(PROMPT, [1])
    expected = generator.render(PROMPT, [1]) - before
    assert torch.cosine_similarity(moved.flatten(), expected.flatten(), 0) > 0.9


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (TORCHAO_INT8, 0.01),
        (BITSANDBYTES_INT8, 0.02),
        (BITSANDBYTES_NF4, 0.15),
    ],
)
def test_a_module_in_memory_is_quantised_where_it_is(found, error):
    if found.package == "bitsandbytes":
        pytest.importorskip("bitsandbytes", reason="in the extra quantization")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 64), nn.Linear(64, 64))
    module.append(nn.Linear(64, 64))
    module[4].weight = module[3].weight
    images = torch.randn(8, 64, requires_grad=True)
    before = module.requires_grad_(False)(images)
    quantize(module, found)
    assert all(layer.weight.dtype != torch.float32 or is_int8(layer) for layer in (module[0], module[2]))
    assert module[3].weight is module[4].weight
    assert type(module[3].weight) is nn.Parameter, "what is shared stays whole"
    after = module(images)
    assert 0 < (after - before).norm() / before.norm() < error
    (expected,), (gradient,) = (torch.autograd.grad(out.square().sum(), images) for out in (before, after))
    assert (gradient - expected).norm() / expected.norm() < 2 * error


def is_int8(layer):
    return getattr(layer.weight, "qdata", layer.weight).dtype == torch.int8


def test_random_weights_are_quantised_too(loaded):
    spec = loaded.spec.generator.model_copy(update={"model": str(generator_folder()), "quantization": "int8"})
    generator = build_generator(spec, CPU, "random", PROMPT)
    assert is_int8(generator.denoiser.x_embedder)
    assert is_int8(generator.pipeline.text_encoder_2.encoder.block[0].layer[0].SelfAttention.q)


@pytest.mark.parametrize(
    ("name", "device", "installed", "message"),
    [
        ("nf4", CPU, True, "vlm.quantization: nf4: needs a CUDA device, and this is cpu; set it to int8"),
        ("int8", CPU, False, "needs the package torchao: pip install torchao"),
        ("int8", CUDA, False, "needs the package bitsandbytes: pip install bitsandbytes"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(name, device, installed, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if installed else None)
    with pytest.raises(UserError, match=message):
        quantization(name, device, "vlm")


def test_on_cuda_bitsandbytes_computes_in_the_dtype_of_the_model(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    found = quantization("nf4", CUDA, "generator")
    assert found.config == "BitsAndBytesConfig"
    options = found.options(torch.bfloat16)
    assert options["load_in_4bit"]
    assert options["bnb_4bit_compute_dtype"] == torch.bfloat16
    assert quantization("int8", CUDA, "generator").options(torch.bfloat16) == {"load_in_8bit": True}
    assert quantization("none", CUDA, "generator") is None
