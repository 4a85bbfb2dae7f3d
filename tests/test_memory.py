"""Memory is predicted by running the real code on models without weights, and rungs of the ladder save it."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.compiler import compile_loss
from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator
from dualproc_cli.learning.checkpoint import run_digest
from dualproc_cli.learning.learner import Learner
from dualproc_cli.memory import Estimate, choose, choose_to_draw, deeper, predict, with_rungs
from dualproc_cli.memory import plan as ladder
from dualproc_cli.memory import strategies as rungs
from dualproc_cli.memory.estimate import predict_drawing
from dualproc_cli.memory.meta_tensors import Ledger, MetaTensor, NoValueError, empty, offloaded, to_meta
from dualproc_cli.spec import GeneratorSpec, GradientSpec, load_spec
from dualproc_cli.vlm import load_vlm

CPU = torch.device("cpu")
SPEC = Path(__file__).parent.parent / "specs/horizon-position.yaml"


@pytest.fixture
def ledger():
    with Ledger().counting() as found:
        yield found


@pytest.fixture(scope="module")
def loaded():
    return load_spec(SPEC, ["learn.batch_size=2"])


@pytest.fixture(scope="module")
def plain(loaded):
    return predict(loaded, CPU)


def test_ledger_counts_what_an_allocator_would(ledger):
    model = to_meta(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), torch.float32)
    weights = 4 * (8 * 16 + 16 + 16 * 4 + 4)
    assert ledger.live == ledger.bytes_of(model) == weights
    out = model(torch.zeros(32, 8))
    # GELU keeps its input and the last layer its own.
    assert ledger.live - weights == 4 * 32 * (16 + 16 + 4)
    assert isinstance(out, MetaTensor)
    assert out.device == CPU
    out.backward(empty(out))
    del out
    assert ledger.live == 2 * weights  # gradients
    assert ledger.peak > ledger.live


def test_views_and_tied_weights_are_counted_once(ledger):
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    to_meta(model, torch.bfloat16)
    assert model[1].weight is model[0].weight
    model[0].weight.T.reshape(-1)[:3].view(1, 3)
    assert ledger.live == ledger.bytes_of(model) == 10 * 4 * 2
    assert ledger.peak == 2 * 10 * 4 * 2, "the transposed copy, while it lived"


def test_what_is_real_is_computed_and_hollow_values_cannot_be_asked_for(ledger):
    hollow = MetaTensor(torch.empty(2, 3, device="meta"))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert hollow[mask].shape == (3,)
    with pytest.raises(NoValueError):
        hollow.sum().item()


def test_offloaded_activations_are_not_counted(ledger):
    weight = nn.Parameter(MetaTensor(torch.empty(64, 64, device="meta")))
    start = ledger.live
    with offloaded():
        out = F.gelu(torch.zeros(8, 64) @ weight).square().sum()
    assert ledger.live - start == 4
    out.backward()
    assert weight.grad.shape == (64, 64)


def test_prediction_names_its_parts(plain, loaded):
    generator = load_generator(loaded.spec.generator, CPU)
    count = sum(parameter.numel() for parameter in generator.denoiser.parameters())
    assert plain.parts["denoiser"] == 4 * count
    generator.attach(loaded.spec.learn.adapter, 0)
    learned = sum(parameter.numel() for parameter in generator.adapter_parameters())
    assert plain.parts["adapter"] == 4 * learned
    assert plain.parts["optimizer"] == 12 * learned
    assert plain.total == sum(plain.parts.values())


class Allocations(TorchDispatchMode):
    """Counts, on a ledger, what is really allocated inside the block."""

    def __init__(self, ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.ledger.enter(tensor)
        return out


def test_prediction_is_what_a_step_really_allocates(loaded, plain):
    spec = loaded.spec
    generator, vlm = load_generator(spec.generator, CPU), load_vlm(spec.vlm, CPU)
    generator.attach(spec.learn.adapter, 0)
    learner = Learner(spec, generator, compile_loss(loaded, vlm, 64, 64))
    learner.step()  # the optimiser's state is there, and the prompts are encoded
    modules = [part for part in generator.pipeline.components.values() if isinstance(part, nn.Module)]
    ledger = Ledger()
    for module in (*modules, vlm.model):
        for parameter in module.parameters():
            ledger.enter(parameter)
    for state in learner._optimizer.state.values():
        ledger.enter(state["exp_avg"])
        ledger.enter(state["exp_avg_sq"])
    with Allocations(ledger):
        learner.step()
    assert plain.total == pytest.approx(ledger.peak, rel=0.05)


def test_activations_grow_with_the_batch(plain):
    twice = predict(load_spec(SPEC, ["learn.batch_size=4"]), CPU)
    assert twice.parts["activations"] / plain.parts["activations"] == pytest.approx(2, rel=0.05)


def test_every_rung_saves_what_it_says(loaded, plain):
    def saved(*rungs):
        return plain.total - predict(loaded, CPU, rungs).total

    assert saved("free-text-encoders") == plain.parts["text encoders"] > 0
    assert saved("checkpoint-denoiser") > 0.2 * plain.parts["activations"]
    assert saved("offload-activations") > saved("checkpoint-denoiser")
    quantized = predict(loaded, CPU, ["int8"])
    assert quantized.parts["denoiser"] < 0.4 * plain.parts["denoiser"]


def test_auto_goes_down_the_ladder_only_as_far_as_it_must(loaded, plain, monkeypatch):
    monkeypatch.setattr(ladder, "LARGE", 1e9)  # predict, although it is small
    monkeypatch.setattr(ladder, "device_bytes", lambda device: plain.total * 2)
    assert choose(loaded, CPU).rungs == ()
    monkeypatch.setattr(ladder, "device_bytes", lambda device: plain.total / ladder.HEADROOM - 1)
    choice = choose(loaded, CPU)
    assert choice.rungs == ("checkpoint-denoiser",)
    assert "fits" in choice.reason
    assert deeper(loaded, choice.rungs, CPU) == ("checkpoint-denoiser", "checkpoint-vae")


def test_the_bottom_of_the_ladder(loaded, plain, monkeypatch):
    monkeypatch.setattr(ladder, "LARGE", 1e9)
    monkeypatch.setattr(ladder, "device_bytes", lambda device: 1)
    monkeypatch.setattr(ladder, "predict", lambda loaded, device, rungs=(): ladder_of(plain, rungs))
    choice = choose(loaded, CPU)
    assert "does not fit" in choice.reason
    assert choice.rungs == ("checkpoint-denoiser", "half-view"), (
        "a rung that fails or saves nothing is left out"
    )
    assert with_rungs(loaded, choice.rungs).spec.vlm.image_scale == 0.5
    assert deeper(loaded, choice.rungs, CPU) == (*choice.rungs, "checkpoint-vae")


def test_below_8_bits_are_4(loaded, monkeypatch):
    monkeypatch.setattr(rungs, "NEED_CUDA", ())
    others = tuple(name for name in rungs.possible(False, CPU) if name not in rungs.QUANTIZATIONS)
    assert deeper(loaded, (*others, "int8"), CPU) == (*others, "nf4")
    assert deeper(loaded, (*others, "nf4"), CPU) == ()
    assert with_rungs(loaded, ["nf4"]).spec.vlm.quantization == "nf4"
    chosen = load_spec(SPEC, ["vlm.quantization=int8"])
    assert deeper(chosen, others, CPU) == (), "what the user chose stays"


def test_drawing_takes_less_than_learning(loaded, plain, monkeypatch):
    monkeypatch.setattr(ladder, "LARGE", 1e9)
    spec, prompts = loaded.spec.generator, list(loaded.spec.prompts.train)
    alone = predict_drawing(spec, prompts, 2, CPU)
    assert alone.parts["denoiser"] == plain.parts["denoiser"]
    assert alone.total < plain.total / 2
    monkeypatch.setattr(ladder, "device_bytes", lambda device: alone.total / ladder.HEADROOM + 1)
    assert choose_to_draw(spec, prompts, 2, CPU).rungs == ()
    monkeypatch.setattr(ladder, "device_bytes", lambda device: 1)
    assert choose_to_draw(spec, prompts, 2, CPU).rungs == ("int8",), "checkpoints save nothing here"
    named = spec.model_copy(update={"memory": ("checkpoint-vae", "nf4", "half-view")})
    assert choose_to_draw(named, prompts, 2, CPU).rungs == ("checkpoint-vae",), "what this device can do"


def test_sample_goes_down_the_ladder_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "LARGE", 1e9)
    monkeypatch.setattr(ladder, "device_bytes", lambda device: 1)
    result = CliRunner().invoke(app, ["sample", "a house", "-o", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "does not fit" in result.stderr
    assert "(int8: frozen weights of 8 bits)" in result.stderr
    assert (tmp_path / "a-house-0.png").is_file()


def ladder_of(plain, rungs):
    """An estimate that halves with some rungs, and fails with another."""
    if "tile-vae" in rungs:
        raise UserError("cannot be predicted")
    useful = sum(rung in ("checkpoint-denoiser", "half-view") for rung in rungs)
    return Estimate({"activations": plain.total // 2**useful})


def test_rungs_that_are_named_are_taken_as_they_are():
    named = load_spec(SPEC, ["generator.memory=[checkpoint-denoiser, half-view]"])
    choice = choose(named, CPU)
    assert choice.rungs == ("checkpoint-denoiser", "half-view")
    assert run_digest(named.spec) == run_digest(load_spec(SPEC).spec), "a run goes on with other rungs"


def test_rungs_leave_pictures_and_gradients_as_they_are():
    def drawn(rungs):
        spec = load_spec(SPEC).spec
        generator = load_generator(spec.generator, CPU)
        generator.economize(rungs)
        if "free-text-encoders" in rungs:
            generator.release_text_encoders(["a house in a field"])
        generator.attach(spec.learn.adapter, 0)
        images = generator.render(["a house in a field"], [3], gradient=GradientSpec())
        images.square().mean().backward()
        return [images.detach(), *(parameter.grad for parameter in generator.adapter_parameters())]

    rungs = ("free-text-encoders", "checkpoint-vae", "checkpoint-denoiser", "offload-activations")
    for one, other in zip(drawn(()), drawn(rungs), strict=True):
        assert torch.equal(one, other)


def test_a_rung_that_a_pipeline_cannot_draw_with_is_refused(tmp_path):
    # AutoencoderTiny tiles for a scale of 8, whatever its own.
    settings = ["--set", "generator.memory=[tile-vae]", "--device", "cpu"]
    result = CliRunner().invoke(app, ["learn", str(SPEC), "-o", str(tmp_path / "b"), *settings])
    assert result.exit_code == 2
    assert "generator.memory: FluxPipeline cannot draw with tile-vae" in result.output
    assert not (tmp_path / "b").exists()


def test_out_of_memory_names_the_next_rung_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    step = Learner.step

    def exhausted(self):
        if len(self.metrics) == 2:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return step(self)

    monkeypatch.setattr(Learner, "step", exhausted)
    arguments = ["learn", str(SPEC), "-o", str(tmp_path / "b"), "--set", "learn.batch_size=1"]
    arguments += ["--set", "learn.steps=3", "--set", "learn.checkpoint_every=1", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert re.search(
        r"out of memory at step 3; the last good checkpoint is .*, of step 2; go on", result.output
    )
    advised = re.search(r"--resume --set '(generator.memory=.*)'", result.output)
    assert advised[1] == "generator.memory=[checkpoint-vae]"
    monkeypatch.setattr(Learner, "step", step)
    result = CliRunner().invoke(app, [*arguments, "--resume", "--set", advised[1]])
    assert result.exit_code == 0
    assert "resuming after step 2" in result.output
    assert not list(tmp_path.glob("*.checkpoint.*"))


def test_check_prints_the_prediction(loaded, plain):
    result = CliRunner().invoke(
        app, ["check", str(SPEC), "--memory", "--json", "--device", "cpu", "--set", "learn.batch_size=2"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["specs"][0]["memory"]
    assert found["parts"] == plain.parts
    assert found["total"] == plain.total
    assert found["fits"] is True
    assert found["rungs"] == []


def test_a_known_shape_needs_no_files():
    setting = ["generator.model=stabilityai/sdxl-turbo", "generator.width=512", "generator.height=512"]
    spec = load_spec(SPEC, [*setting, "learn.batch_size=1", "learn.keep={}"])
    estimate = predict(spec, torch.device("cuda"))
    assert estimate.parts["denoiser"] == pytest.approx(2 * 2.567e9, rel=0.001)


def test_a_model_without_configuration_is_refused():
    missing = load_spec(SPEC, ["generator.model=nobody/nothing"])
    with pytest.raises(
        UserError, match=r"generator\.model: nobody/nothing: its configuration cannot be read"
    ):
        predict(missing, CPU)
    assert GeneratorSpec().memory == "auto"
