"""Memory is estimated by running the real code on models without weights; strategies make a run need less."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate.utils import compute_module_sizes
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import compile_loss
from dualproc_cli.errors import UserError
from dualproc_cli.generator import load_generator, spreading
from dualproc_cli.learning import learner as learner_module
from dualproc_cli.learning.checkpoint import run_digest
from dualproc_cli.learning.learner import Learner
from dualproc_cli.memory import (
    Estimate,
    estimate_drawing,
    estimate_evaluation,
    estimate_learning,
    plan,
    plan_drawing,
    plan_evaluation,
    plan_learning,
)
from dualproc_cli.memory.strategies import STRATEGIES, named
from dualproc_cli.models.meta_tensors import Ledger
from dualproc_cli.models.quantization import BITS
from dualproc_cli.spec import GradientSpec, load_spec
from dualproc_cli.spec.control import ControlSpec
from dualproc_cli.vlm import load_vlm

# One phase, and an adapter that is small beside the activations.
CHANGES = ["learn.where=[weights]", "learn.adapter.rank=16"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = Path(__file__).parent.parent / "specs/horizon-position.yaml"


@pytest.fixture(scope="module")
def loaded():
    return load_spec(SPEC, ["learn.batch_size=2", *CHANGES])


@pytest.fixture(scope="module")
def plain(loaded):
    return estimate_learning(loaded, CPU)


@pytest.fixture
def free(monkeypatch):
    """Set the free memory of every device, and estimate even models that are small enough to fit anyway."""
    monkeypatch.setattr(plan, "LARGE", 1e9)

    def set_free(count):
        monkeypatch.setattr(plan, "free_bytes", lambda device: count)

    return set_free


def halved_by(monkeypatch, *useful, fails=()):
    """Make the estimate halve with each ``useful`` strategy, and raise for those in ``fails``."""

    def estimated(loaded, device, strategies=()):
        names = {strategy.name for strategy in strategies}
        if names & set(fails):
            raise UserError("cannot be predicted")
        return Estimate({"activations": 2**40 // 2 ** len(names & set(useful))})

    monkeypatch.setattr(plan, "estimate_learning", estimated)


# The estimate


def test_an_estimate_names_its_parts(plain, loaded):
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


def held(*modules):
    """Return a ledger that counts the weights of these modules."""
    ledger = Ledger()
    for module in modules:
        for parameter in module.parameters():
            ledger.enter(parameter)
    return ledger


def test_an_estimate_is_what_a_step_really_allocates(loaded, plain):
    spec = loaded.spec
    generator, vlm = load_generator(spec.generator, CPU), load_vlm(spec.vlm, CPU)
    generator.attach(spec.learn.adapter, 0)
    learner = Learner(spec, generator, compile_loss(loaded, vlm, 64, 64))
    learner.step()  # the optimizer's state is there, and the prompts are encoded
    modules = [part for part in generator.pipeline.components.values() if isinstance(part, nn.Module)]
    ledger = held(*modules, vlm.model)
    moments = learner.checkpoint().moments  # copies, as large as the optimizer's state, which stay alive
    for moment in (moment for pair in moments for moment in pair):
        ledger.enter(moment)
    with Allocations(ledger):
        learner.step()
    assert plain.total == pytest.approx(ledger.peak, rel=0.05)


def run_to_the_end(loaded):
    """Run all phases of learning; return the ledger of what was held, and the bytes of the weights."""
    spec = loaded.spec
    generator, vlm = load_generator(spec.generator, CPU), load_vlm(spec.vlm, CPU)
    generator.add_adapter(spec.learn.adapter, 0)
    generator.add_steering(spec.steered, 0)
    learner = Learner(spec, generator, compile_loss(loaded, vlm, 64, 64))
    modules = [part for part in generator.pipeline.components.values() if isinstance(part, nn.Module)]
    ledger = held(*modules, vlm.model, generator.steering)
    weights = ledger.live
    with Allocations(ledger):
        while not learner.finished:
            learner.step()
    return ledger, weights


@pytest.fixture
def all_are_taught(monkeypatch):
    """An estimate is of the most that learning may take: where all pictures of a batch are right."""
    monkeypatch.setattr(learner_module, "worthy", lambda worth: torch.ones_like(worth, dtype=torch.bool))


@pytest.mark.usefixtures("all_are_taught")
def test_an_estimate_covers_every_phase(plain):
    changes = ["learn.batch_size=2", "learn.steps=1", "learn.teach.steps=2"]
    loaded = load_spec(SPEC, [*changes, "learn.where=[noise]"])
    ledger, _ = run_to_the_end(loaded)
    assert estimate_learning(loaded, CPU).total == pytest.approx(ledger.peak, rel=0.1)
    views = load_spec(SPEC, [*changes, *CHANGES, "learn.jitter.views=8"])
    assert estimate_learning(views, CPU).total > plain.total


@pytest.mark.usefixtures("all_are_taught")
def test_an_estimate_of_teaching_counts_what_is_compared():
    changes = ["learn.batch_size=1", "learn.teach.batch_size=8", "learn.steps=1", "learn.teach.steps=2"]
    loaded = load_spec(SPEC, [*changes, "learn.where=[conditioning]"])
    ledger, weights = run_to_the_end(loaded)
    found = estimate_learning(loaded, CPU).parts
    held_besides = found["activations"] + found["optimizer"]  # the gradients are part of it
    assert held_besides == pytest.approx(ledger.peak - weights, rel=0.02)


def test_an_estimate_of_evaluating_is_that_of_the_largest_model():
    loaded = load_spec(SPEC)
    found = estimate_evaluation(loaded, 8, CPU)
    assert "optimizer" not in found.parts
    second = load_spec(SPEC, ["evaluate.vlm={model: miniature, image_scale: 0.5}"])
    assert estimate_evaluation(second, 8, CPU) == found, "one VLM is loaded after the other"
    spec = loaded.spec
    generator, vlm = load_generator(spec.generator, CPU), load_vlm(spec.vlm, CPU)
    generator.add_adapter(spec.learn.adapter, 0)
    prompts = [spec.prompts.train[0]] * 8
    generator.render(prompts[:1], [0])
    modules = [part for part in generator.pipeline.components.values() if isinstance(part, nn.Module)]
    drawing, asking = held(*modules), held(vlm.model)
    with torch.no_grad():
        with Allocations(drawing):
            images = generator.render(prompts, range(8))
        loss = compile_loss(loaded, vlm, 64, 64)
        with Allocations(asking):
            loss(images)
    assert found.total == pytest.approx(max(drawing.peak, asking.peak), rel=0.1)


def test_questions_without_a_visual_prompt_are_estimated_too(small_spec, tmp_path):
    asked = [{"name": "night", "question": "Is it night?", "answer": "night"}]
    parts = estimate_learning(load_spec(small_spec(tmp_path, {"questions": asked})), CPU).parts
    assert parts["vlm"] > 0
    assert parts["activations"] > 0


def test_activations_grow_with_the_batch(plain):
    twice = estimate_learning(load_spec(SPEC, ["learn.batch_size=4", *CHANGES]), CPU)
    assert twice.parts["activations"] / plain.parts["activations"] == pytest.approx(2, rel=0.05)


def test_drawing_takes_less_than_learning(loaded, plain):
    alone = estimate_drawing(loaded.spec.generator, loaded.spec.prompts.train, 2, CPU)
    assert alone.parts["denoiser"] == plain.parts["denoiser"]
    assert alone.total < plain.total / 2


def test_a_known_shape_needs_no_files():
    setting = ["generator.model=stabilityai/sdxl-turbo", "generator.width=64", "generator.height=64"]
    spec = load_spec(SPEC, [*setting, "learn.batch_size=1", "learn.keep={}"])
    estimate = estimate_drawing(spec.spec.generator, ["a house"], 1, CUDA)
    assert estimate.parts["denoiser"] == pytest.approx(2 * 2.567e9, rel=0.001)


def test_a_model_without_configuration_is_refused():
    missing = load_spec(SPEC, ["generator.model=nobody/nothing"])
    expected = r"generator\.model: nobody/nothing: its configuration cannot be read"
    with pytest.raises(UserError, match=expected):
        estimate_learning(missing, CPU)


# The strategies


def test_every_strategy_of_the_spec_is_there_once_and_exact_ones_come_first():
    schema = ControlSpec.model_json_schema()["properties"]["memory"]["oneOf"][1]
    names = [strategy.name for strategy in STRATEGIES]
    assert sorted(names) == sorted(schema["items"]["enum"])
    exact = [not strategy.error for strategy in STRATEGIES]
    assert exact == sorted(exact, reverse=True)
    assert all(strategy.does and strategy.cost for strategy in STRATEGIES)


@pytest.mark.parametrize(
    ("name", "part", "share"),
    [
        ("free-text-encoders", "text encoders", 1.0),
        ("checkpoint-denoiser", "activations", 0.2),
        ("offload-activations", "activations", 0.4),
        ("two-devices", "vlm", 1.0),
        ("int8", "denoiser", 0.6),
    ],
)
def test_a_strategy_saves_what_it_says(name, part, share, loaded, plain):
    saved = plain.parts[part] - estimate_learning(loaded, CPU, named([name])).parts[part]
    assert share * plain.parts[part] <= saved <= plain.parts[part]


def drawn_and_differentiated(names, spread=()):
    """Return a picture and the adapter's gradients, with strategies and the denoiser spread over devices."""
    spec = load_spec(SPEC).spec
    generator = load_generator(spec.generator, CPU)
    for strategy in named(names):
        strategy.apply(generator, ["a house in a field"])
    if spread:
        spreading.spread_blocks(generator.denoiser, spread)
    generator.attach(spec.learn.adapter, 0)
    images = generator.render(["a house in a field"], [3], gradient=GradientSpec())
    images.square().mean().backward()
    return [images.detach(), *(parameter.grad for parameter in generator.adapter_parameters())]


def test_exact_strategies_leave_pictures_and_gradients_as_they_are():
    exact = [strategy.name for strategy in STRATEGIES if not strategy.error]
    if not torch.cuda.is_available():
        exact.remove("offload-activations")  # pins memory for the device
    for one, other in zip(drawn_and_differentiated(()), drawn_and_differentiated(exact), strict=True):
        assert torch.equal(one, other)


def test_blocks_are_spread_evenly_and_in_order(monkeypatch):
    placed = {}
    monkeypatch.setattr(
        spreading, "dispatch_model", lambda module, places, main_device, force_hooks: placed.update(places)
    )
    denoiser = load_generator(load_spec(SPEC).spec.generator, CPU).denoiser
    spreading.spread_blocks(denoiser, ["cuda:2", "cuda:0", "cuda:1"])
    sizes, held = compute_module_sizes(denoiser), Counter()
    for name, device in placed.items():
        held[device] += sizes[name]
    assert held.total() == sizes[""]
    largest = max(sizes[f"{kind}.0"] for kind in ("transformer_blocks", "single_transformer_blocks"))
    assert max(held.values()) - min(held.values()) <= 2 * largest
    order = [device for name, device in placed.items() if "transformer_blocks." in name]
    assert order == sorted(order, key=["cuda:2", "cuda:0", "cuda:1"].index)
    assert placed["x_embedder"] == "cuda:2"


@pytest.mark.parametrize("names", [(), ("checkpoint-denoiser",)])
def test_a_spread_denoiser_draws_and_learns_the_same(names):
    plain = drawn_and_differentiated(names)
    for one, other in zip(plain, drawn_and_differentiated(names, ["cpu", "cpu"]), strict=True):
        assert torch.equal(one, other)


def test_what_a_device_cannot_do_is_not_available():
    on_cpu = {strategy.name for strategy in STRATEGIES if strategy.available(CPU)}
    assert on_cpu == {
        "half-batches",
        "single-pictures",
        "checkpoint-vae",
        "checkpoint-denoiser",
        "tile-vae",
        "int8",
        "half-image",
    }
    assert "nf4" in {strategy.name for strategy in STRATEGIES if strategy.available(CUDA)}


@pytest.mark.parametrize("key", ["generator.device", "vlm.device"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_loaded(key):
    with pytest.raises(UserError, match=rf"^{key} cuda:93: no such device here \(expected one of: cpu"):
        plan_learning(load_spec(SPEC, [f"{key}=cuda:93"]), CPU)


def test_models_are_loaded_on_their_own_devices(monkeypatch):
    places = []
    monkeypatch.setattr(plan, "pick_device", lambda name, key: torch.device(name))
    monkeypatch.setattr(plan, "load_generator", lambda spec, device: places.append(device) or Place())
    monkeypatch.setattr(plan, "load_vlm", lambda spec, device: places.append(device))
    chosen = load_spec(SPEC, ["generator.device=cuda:1", "vlm.device=cpu", "memory=[]"])
    monkeypatch.setattr(plan, "free_bytes", lambda device: 2**40)
    found = plan_learning(chosen, CPU)
    found.load_generator()
    found.load_vlm()
    assert places == [torch.device("cuda:1"), CPU]
    assert "two-devices" not in {one.name for one in found.available}
    assert run_digest(chosen.spec) == run_digest(load_spec(SPEC).spec)


class Place:
    """Takes the place of a generator."""


def test_a_vlm_on_another_device_takes_none_of_the_generators(loaded, plain):
    apart = load_spec(SPEC, ["learn.batch_size=2", "vlm.device=cuda", *CHANGES])
    assert estimate_learning(apart, CPU).parts == plain.parts | {"vlm": 0}


# The plan


def test_a_plan_takes_no_more_than_it_must(loaded, free, monkeypatch):
    halved_by(monkeypatch, "checkpoint-denoiser", "int8")
    free(2**41)
    assert plan_learning(loaded, CPU).names == []
    free(2**39 / plan.HEADROOM + 1)
    found = plan_learning(loaded, CPU)
    assert found.names == ["checkpoint-denoiser"], "what saves nothing is left out, what is not needed too"
    assert found.estimate.total == 2**39
    assert "memory: 512.0 GiB fits the 512.0 GiB that are free on cpu" in found.reason
    assert found.next().names == ["checkpoint-denoiser", "half-batches"]


def test_a_plan_counts_the_free_memory_of_a_device(monkeypatch):
    from dualproc_cli import device

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    assert device.free_bytes(CUDA) == 10 + 3
    assert device.free_bytes(CPU) > 0


def test_strategies_that_fail_or_save_nothing_are_left_out(loaded, free, monkeypatch):
    free(1)
    halved_by(monkeypatch, "checkpoint-denoiser", "half-image", fails=["tile-vae"])
    found = plan_learning(loaded, CPU)
    assert "does not fit" in found.reason
    assert found.names == ["checkpoint-denoiser", "half-image"]
    assert found.load_vlm().image_scale == 0.5
    assert found.next().names == ["checkpoint-denoiser", "half-image", "half-batches"]


def test_fewer_bits_take_the_place_of_more(loaded, free, monkeypatch):
    monkeypatch.setitem(BITS["nf4"].on, None, BITS["int8"].on[None])  # as if a CPU could
    free(1)
    halved_by(monkeypatch, "int8", "nf4")
    found = plan_learning(loaded, CPU)
    assert found.names == ["int8"], "nf4 in its place saves no more here"
    others = ["single-pictures", "checkpoint-vae", "checkpoint-denoiser", "tile-vae"]
    named_ones = plan_learning(load_spec(SPEC, [f"memory=[{', '.join([*others, 'int8'])}]"]), CPU)
    deeper = named_ones.next()
    assert deeper.names == [*others, "nf4"]
    assert deeper.next().names == [*others, "nf4", "half-image"]
    assert deeper.next().next() is None


def test_pictures_are_drawn_in_parts_before_anything_is_lost(loaded, plain, free, monkeypatch):
    single = estimate_learning(loaded, CPU, named(["single-pictures"])).parts["activations"]
    assert single < 0.6 * plain.parts["activations"], "of two pictures a step"
    halved_by(monkeypatch, "half-batches", "single-pictures", "checkpoint-vae", "int8")
    free(2**39 / plan.HEADROOM + 1)
    assert plan_learning(loaded, CPU).names == ["half-batches"]
    free(1)
    assert plan_learning(loaded, CPU).names == ["half-batches", "checkpoint-vae", "int8"]
    decided = load_spec(SPEC, ["learn.batch_size=2", "learn.micro_batch=1", *CHANGES])
    assert plan_learning(decided, CPU).names == ["checkpoint-vae", "int8"]


def test_weights_that_a_user_quantised_stay_so(free, monkeypatch):
    free(1)
    halved_by(monkeypatch, "int8")
    assert plan_learning(load_spec(SPEC, ["vlm.quantization=int8"]), CPU).names == []


def test_strategies_that_are_named_are_taken_as_they_are():
    chosen = load_spec(SPEC, ["memory=[half-image, checkpoint-denoiser]"])
    assert plan_learning(chosen, CPU).names == ["checkpoint-denoiser", "half-image"]
    assert run_digest(chosen.spec) == run_digest(load_spec(SPEC).spec), "a run goes on with other strategies"


def test_drawing_starts_from_what_was_learned_with_and_goes_on(loaded, free):
    spec, prompts = loaded.spec.generator, list(loaded.spec.prompts.train)
    alone = estimate_drawing(spec, prompts, 2, CPU).total
    free(alone / plan.HEADROOM + 1)
    assert plan_drawing(spec, prompts, [], 2, CPU).names == []
    learned_with = ["checkpoint-vae", "nf4", "int8", "half-image"]
    assert plan_drawing(spec, prompts, learned_with, 2, CPU).names == ["int8"], "this CPU has no nf4"


def test_strategies_that_a_user_named_are_not_added_to(free, loaded):
    free(1)
    chosen = load_spec(SPEC, ["memory=[checkpoint-denoiser]"])
    assert plan_evaluation(chosen, ["checkpoint-denoiser"], 16, CPU).names == ["checkpoint-denoiser"]
    assert plan_drawing(loaded.spec.generator, ["a house"], [], 1, CPU, more=False).names == []


def test_evaluating_starts_from_what_was_learned_with(loaded):
    found = plan_evaluation(loaded, ["checkpoint-denoiser", "nf4", "half-image"], 16, CPU)
    assert found.names == ["checkpoint-denoiser", "half-image"], "this device has no nf4"
    assert [vlm.model for vlm in found.vlms] == ["miniature"]


# The commands


def test_sample_says_what_it_does_to_fit(tmp_path, free):
    free(1)
    result = CliRunner().invoke(app, ["sample", "a house", "-o", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "does not fit" in result.stderr
    assert "(int8: frozen weights have 8 bits)" in result.stderr
    assert (tmp_path / "a-house-0.png").is_file()


def test_a_strategy_that_a_pipeline_cannot_draw_with_is_refused(tmp_path):
    # AutoencoderTiny tiles for a scale of 8, whatever its own.
    settings = ["--set", "memory=[tile-vae]", "--device", "cpu"]
    result = CliRunner().invoke(app, ["learn", str(SPEC), "-o", str(tmp_path / "b"), *settings])
    assert result.exit_code == 2
    assert "memory: FluxPipeline cannot draw with tile-vae" in result.output
    assert not (tmp_path / "b").exists()


def test_out_of_memory_names_the_next_strategy_which_the_bundle_records(tmp_path, monkeypatch):
    step = Learner.step

    def exhausted(self):
        if len(self.metrics) == 2:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return step(self)

    monkeypatch.setattr(Learner, "step", exhausted)
    arguments = ["learn", str(SPEC), "-o", str(tmp_path / "b"), "--set", "learn.batch_size=1"]
    arguments += ["--set", "learn.steps=3", "--set", "learn.checkpoint_every=1", "--device", "cpu"]
    arguments += ["--set", "learn.where=[weights]", "--set", "learn.validation_pictures=0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert re.search(
        r"out of memory at step 3; the last good checkpoint is .*, of step 2; go on", result.output
    )
    advised = re.search(r"--resume --set '(memory=.*)'", result.output)
    assert advised[1] == "memory=[checkpoint-vae]"
    monkeypatch.setattr(Learner, "step", step)
    result = CliRunner().invoke(app, [*arguments, "--resume", "--set", advised[1]])
    assert result.exit_code == 0
    assert "resuming after step 2" in result.output
    assert not list(tmp_path.glob("*.checkpoint.*"))
    assert Bundle.open(tmp_path / "b").manifest.memory == ["checkpoint-vae"]


def test_check_prints_the_estimate(loaded, plain):
    changes = [part for change in ("learn.batch_size=2", *CHANGES) for part in ("--set", change)]
    result = CliRunner().invoke(app, ["check", str(SPEC), "--memory", "--json", "--device", "cpu", *changes])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["specs"][0]["memory"]
    assert found["parts"] == plain.parts
    assert found["total"] == plain.total
    assert found["fits"] is True
    assert found["strategies"] == []


def test_check_says_what_a_strategy_costs(free):
    free(1)
    setting = "memory=[checkpoint-denoiser, half-image]"
    arguments = ["check", str(SPEC), "--memory", "--device", "cpu", "--set", setting]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    for name, exactness in (("checkpoint-denoiser", "exact"), ("half-image", "lossy: P(answer) differs")):
        (strategy,) = named([name])
        assert f"{name} {strategy.does}; {strategy.cost}; {exactness}" in said
