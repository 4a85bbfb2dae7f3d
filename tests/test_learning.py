"""Learning: seeds, schedule, regularisers, and that a run is the same however it was interrupted."""

import errno
import io
import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from dualproc_cli.bundle import Bundle
from dualproc_cli.compiler import CompositeLoss, LossReport
from dualproc_cli.drawing import FIRST_HELD_OUT, draw_seeds, held_out_seeds
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.generator import Generator, read_steering
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.keep.details import RARE
from dualproc_cli.keep.distance import distance, total_variation
from dualproc_cli.keep.recoloring import recoloring
from dualproc_cli.learning import Interrupted, learn
from dualproc_cli.learning.checkpoint import Best, Checkpoint
from dualproc_cli.learning.learner import Learner
from dualproc_cli.learning.output import Output
from dualproc_cli.learning.progress import LearningProgress
from dualproc_cli.learning.schedule import Schedule, rate_factor
from dualproc_cli.learning.validation import Validator, is_best, settled
from dualproc_cli.metrics import (
    WINDOW,
    StepMetrics,
    Validation,
    first_and_last_probability,
    recent_loss,
    recent_probabilities,
)
from dualproc_cli.spec import KeepSpec, load_spec

CPU = torch.device("cpu")


def entry(step=1, loss=1.0, probability=0.5):
    return StepMetrics(
        step=step,
        phase="weights",
        loss=loss,
        keep=0.5,
        losses={"q": loss},
        probabilities={"q": probability},
        gradient_norm=1.0,
        learning_rate=0.1,
    )


# Seeds, schedule, metrics


def test_held_out_seeds_are_never_learned_on():
    drawn = draw_seeds(torch.Generator().manual_seed(0), 10_000)
    assert 0 <= min(drawn) < max(drawn) < FIRST_HELD_OUT
    assert held_out_seeds(3) == [FIRST_HELD_OUT, FIRST_HELD_OUT + 1, FIRST_HELD_OUT + 2]


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_rate_is_positive_and_ends_low(steps):
    factors = [rate_factor(step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[-1] <= max(1 / (0.4 * steps), 1 / steps)


def test_rate_warms_up_holds_and_decays():
    factors = [rate_factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10:61] == [1.0] * 51
    assert factors[61:] == pytest.approx([(100 - step) / 40 for step in range(61, 100)])


def test_recent_means_look_back_over_the_window():
    metrics = [entry(step, loss=step, probability=step / 10) for step in range(1, 9)]
    assert recent_loss(metrics) == 6.5
    assert recent_probabilities(metrics) == {"q": pytest.approx(0.6)}
    assert first_and_last_probability(metrics, "q") == (pytest.approx(0.3), pytest.approx(0.6))


# Staying close to the base


def ramp(slope):
    """A picture [1, 3, 4, 4] that rises by ``slope`` a pixel from left to right."""
    return (slope * torch.arange(4.0)).expand(1, 3, 4, 4)


def test_picture_is_the_mean_absolute_difference():
    assert distance(ramp(0.1) + 0.2, ramp(0.1), KeepSpec(picture=2)).item() == pytest.approx(0.4)


def test_structure_is_blind_to_a_shift_of_colour():
    assert distance(ramp(0.1) + 0.2, ramp(0.1), KeepSpec(structure=3)).item() == pytest.approx(0, abs=1e-6)
    assert distance(ramp(0.3), ramp(0.1), KeepSpec(structure=3)).item() == pytest.approx(0.6)


def test_smoothness_counts_excess_only_and_picture_by_picture():
    keep = KeepSpec(smoothness=1)
    assert distance(ramp(0.1), ramp(0.3), keep).item() == 0
    rougher, smoother = torch.cat([ramp(0.3), ramp(0.1)]), torch.cat([ramp(0.1), ramp(0.3)])
    assert distance(rougher, smoother, keep).item() == pytest.approx(0.1)


def halves(column, *colors):
    """A picture [1, 3, 12, 12] of two colors, that of the left up to ``column``."""
    left, right = (torch.tensor(color)[:, None, None].expand(3, 12, 12) for color in colors)
    return torch.where(torch.arange(12) < column, left, right)[None]


BASE = halves(6, [0.9, 0.4, 0.3], [0.2, 0.6, 0.8])
NOT_RECOLORED = {
    "moved": halves(4, [0.9, 0.4, 0.3], [0.2, 0.6, 0.8]),
    "smeared": BASE.cumsum(-1) / torch.arange(1, 13),
    "vanished": torch.full_like(BASE, 0.5),
    "stained": BASE + 0.1 * torch.linspace(-1, 1, 12)[:, None].square(),
}


@pytest.mark.parametrize("keep", [KeepSpec(matting=1), KeepSpec(recoloring=1)], ids=["matting", "recoloring"])
def test_what_appears_vanishes_or_moves_is_charged_and_no_recolouring(keep):
    recolored = distance(halves(6, [0.1, 0.2, 0.8], [0.7, 0.3, 0.4]), BASE, keep).item()
    assert recolored < 0.01
    for what, picture in NOT_RECOLORED.items():
        cost = distance(picture, BASE, keep).item()
        assert cost > max(3 * recolored, 0.02), what
        assert distance(BASE, picture, keep).item() == pytest.approx(cost), what


def test_recoloring_charges_a_slope_that_is_steeper_in_one_place_more_than_matting():
    down = torch.linspace(0.3, 0.7, 48)[:, None].expand(3, 48, 48)[None]
    steeper = 2 * down - 0.5
    once = torch.where(torch.arange(48) < 24, down, steeper)
    cost = {name: distance(once, down, KeepSpec(**{name: 1})).item() for name in ("matting", "recoloring")}
    assert cost["recoloring"] > 3 * cost["matting"]
    assert distance(steeper, down, KeepSpec(recoloring=1)).item() < 0.001


def test_recoloring_of_a_flat_picture_is_the_deviation():
    base, images = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.5)
    images[..., :2] = 0.8
    assert distance(images, base, KeepSpec(recoloring=2)).item() == pytest.approx(2 * 0.15, rel=0.02)


def with_window(ground, window, side=48):
    """A picture [1, 3, side, side] with a square of 6 x 6, which is 1/64 of the smallest."""
    images = torch.full((1, 3, side, side), ground)
    images[..., 18:24, 18:24] = window
    return images


def test_details_charges_a_small_thing_by_its_rarity_and_no_large_area():
    base, keep = with_window(0.2, 0.9), KeepSpec(details=2)
    assert distance(with_window(0.6, 0.9), base, keep).item() == 0
    inside, rare = 16 / 48**2, 1 - (1 / 64) / RARE
    tinted = distance(with_window(0.2, 0.8), base, keep).item()
    assert tinted == pytest.approx(2 * 0.1 * inside * rare, rel=1e-4)
    again, once = (with_window(0.2, value, side=64) for value in (0.8, 0.9))
    twice = [F.interpolate(images, scale_factor=2) for images in (again, once)]
    assert distance(*twice, keep).item() == pytest.approx(distance(again, once, keep).item(), rel=1e-4)


def test_recoloring_of_a_large_picture_is_that_of_a_smaller_one():
    small = torch.rand(2, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    one, other = (half[None].repeat_interleave(2, 2).repeat_interleave(2, 3) for half in small)
    assert torch.allclose(recoloring(one, other), recoloring(small[:1], small[1:]), atol=1e-6)


def test_matting_of_a_flat_picture_is_the_deviation_in_each_window():
    base, images = torch.full((1, 3, 3, 3), 0.5), torch.full((1, 3, 3, 3), 0.5)
    images[..., 1, 1] = 0.8
    deviation = (3 * 0.3**2 * (1 / 9 - 1 / 81)) ** 0.5
    assert distance(images, base, KeepSpec(matting=2)).item() == pytest.approx(2 * deviation, rel=0.05)


def test_total_variation_adds_both_directions():
    both = ramp(0.1) + ramp(0.2).transpose(-1, -2)
    assert total_variation(both).tolist() == pytest.approx([0.3])


def test_distance_has_a_gradient_and_weights_of_zero_do_nothing():
    assert not KeepSpec().matters
    images = ramp(0.2).clone().requires_grad_()
    distance(
        images, ramp(0.1), KeepSpec(picture=1, structure=1, smoothness=1, matting=1, recoloring=1)
    ).backward()
    assert images.grad.abs().sum() > 0
    assert distance(images, ramp(0.1), KeepSpec()).item() == 0


# Checkpoints


def checkpoint(**changes):
    values = {
        "spec_digest": "d",
        "metrics": [entry(loss=0.1 + 0.2)],
        "validations": [Validation(step=1, phase="steer", right=None, clean=0.5, right_and_clean=None)],
        "phase": "weights",
        "steering": {"offsets.text_encoder-2-64": torch.rand(3)},
        "rng": torch.Generator().manual_seed(3).get_state(),
        "adapter": {"m.lora_A.weight": torch.rand(2, 3)},
        "words": {"a house": "a ball"},
        "start": {"m.lora_A.weight": torch.rand(2, 3)},
        "moments": [(torch.rand(2, 3), torch.rand(2, 3))],
        "best": Best(1, 0.25, {"m.lora_A.weight": torch.rand(2, 3)}, {"offsets.x": torch.rand(2)}),
    }
    return Checkpoint(**{**values, **changes})


def test_checkpoint_comes_back_bit_for_bit(tmp_path):
    before = checkpoint()
    before.write(tmp_path / "c")
    after = Checkpoint.read(tmp_path / "c")
    assert after.metrics == before.metrics
    assert after.spec_digest == "d"
    assert torch.equal(after.rng, before.rng)
    assert torch.equal(after.adapter["m.lora_A.weight"], before.adapter["m.lora_A.weight"])
    assert all(torch.equal(a, b) for a, b in zip(after.moments[0], before.moments[0], strict=True))
    assert (after.best.step, after.best.loss) == (1, 0.25)
    assert torch.equal(after.best.steering["offsets.x"], before.best.steering["offsets.x"])
    kept = before.phase, before.validations, before.words
    assert (after.phase, after.validations, after.words) == kept
    assert after.steering.keys() == before.steering.keys()
    assert torch.equal(after.start["m.lora_A.weight"], before.start["m.lora_A.weight"])


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_damaged_checkpoint_is_refused(tmp_path, damage):
    checkpoint().write(tmp_path / "c")
    (tmp_path / "c").write_bytes(damage((tmp_path / "c").read_bytes()))
    with pytest.raises(UserError, match="damaged checkpoint"):
        Checkpoint.read(tmp_path / "c")


@pytest.mark.parametrize("eighth", range(8))
def test_a_flipped_byte_is_noticed(tmp_path, eighth):
    checkpoint().write(tmp_path / "c")
    data = bytearray((tmp_path / "c").read_bytes())
    data[len(data) * eighth // 8 + 1] ^= 1
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(UserError, match="damaged checkpoint"):
        Checkpoint.read(tmp_path / "c")


# Whole runs on small models


@pytest.fixture
def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def run(small_spec, tmp_path, quiet):
    """Learn the small control into ``tmp_path / name``; keyword arguments go to `learn`."""

    def start(name="out", changes=(), **options):
        loaded = load_spec(small_spec(tmp_path), changes)
        learn(loaded, tmp_path / name, device=CPU, console=quiet, **options)
        return tmp_path / name

    return start


def adapter(folder):
    return (folder / "pytorch_lora_weights.safetensors").read_bytes()


def after_step(monkeypatch, step, action):
    """Call ``action`` once the run has shown ``step``."""
    show = LearningProgress.show

    def shown(self, metrics, steps):
        show(self, metrics, steps)
        if metrics[-1].step == step:
            action()

    monkeypatch.setattr(LearningProgress, "show", shown)


def no_model_is_loaded(monkeypatch):
    def load(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("dualproc_cli.learning.control.plan_learning", load)


def test_run_learns_and_is_the_same_each_time(run, tmp_path):
    one, two = run("one"), run("two")
    assert adapter(one) == adapter(two)
    assert not list(tmp_path.glob("*.checkpoint*"))
    bundle = Bundle.open(one)
    assert bundle.manifest.outcome.reason == "steps"
    assert [entry.step for entry in bundle.manifest.metrics] == [1, 2, 3, 4, 5, 6]
    assert bundle.manifest.metrics == Bundle.open(two).manifest.metrics
    first, last = bundle.manifest.metrics[0], bundle.manifest.metrics[-1]
    assert first.keep == 0  # the adapter starts without effect
    assert last.keep > 0
    ups = [value for key, value in AdapterFile.read(one).tensors.items() if ".lora_B." in key]
    assert all(up.abs().sum() > 0 for up in ups)


def test_another_seed_gives_another_adapter(run):
    changes = ["learn.steps=1"]
    assert adapter(run("one", changes)) != adapter(run("two", [*changes, "learn.seed=1"]))


def test_loss_goes_down(run):
    changes = ["learn.steps=30", "learn.keep={}", "learn.jitter={}"]
    metrics = Bundle.open(run(changes=changes)).manifest.metrics
    assert recent_loss(metrics) < recent_loss(metrics[:WINDOW]) - 0.2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_resumes_bit_for_bit(run, tmp_path, monkeypatch, quiet, number):
    straight = run("straight")
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda: signal.raise_signal(number))
        handler = signal.getsignal(number)
        with pytest.raises(Interrupted, match=r"after step 3 of 6.*--resume") as caught:
            run("resumed")
        assert signal.getsignal(number) == handler
    assert caught.value.exit_status == 130
    assert not (tmp_path / "resumed").exists()
    assert Checkpoint.read(Output(tmp_path / "resumed").checkpoint).step == 3
    resumed = run("resumed", resume=True)
    assert "resuming after step 3" in quiet.file.getvalue()
    assert adapter(resumed) == adapter(straight)
    assert Bundle.open(resumed).manifest.metrics == Bundle.open(straight).manifest.metrics


def test_second_interruption_acts_at_once(run, tmp_path, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    after_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(tmp_path.iterdir()) == [tmp_path / "spec.yaml"]


def test_keep_best_leaves_a_bundle_of_an_interrupted_run(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        after_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="holds the best state so far, of step 4"):
            run(keep_best=True)
    manifest = Bundle.open(tmp_path / "out").manifest
    assert (manifest.outcome.reason, manifest.outcome.step) == ("interrupted", 4)
    assert adapter(run("again", resume=False)) == adapter(run(resume=True))


def test_stop_at_ends_the_run_at_once_if_the_rate_does_not_fall(run, quiet):
    changes = ["learn.stop_at=1e-7"]
    manifest = Bundle.open(run(changes=changes)).manifest
    assert (manifest.outcome.reason, manifest.outcome.step) == ("stop_at", WINDOW)
    assert "holds above 1e-07" in quiet.file.getvalue()


def test_stop_at_lets_the_rate_fall_first_and_is_resumed(run, tmp_path, monkeypatch, quiet):
    changes = ["learn.stop_at=1e-7", "learn.steps=20", "learn.schedule=warmup-stable-decay"]
    straight = run("straight", changes)
    manifest = Bundle.open(straight).manifest
    assert (manifest.outcome.reason, manifest.outcome.step) == ("stop_at", math.ceil(WINDOW / 0.6))
    rates = [step.learning_rate for step in manifest.metrics]
    assert rates[0] < rates[1] == rates[WINDOW - 1] == max(rates)
    assert sorted(rates[WINDOW:], reverse=True) == rates[WINDOW:]
    assert rates[-1] < rates[WINDOW - 1] / 3
    assert "P(answer) is high; it takes 11 steps less" in quiet.file.getvalue()
    with monkeypatch.context() as patch:
        after_step(patch, WINDOW + 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            run("again", changes)
    assert adapter(run("again", changes, resume=True)) == adapter(straight)


def scheduled(probabilities, schedule="warmup-stable-decay", leaves_far=False):
    """How many steps of 10, or up to 20, a phase takes after each, by P(answer) of its questions at each."""
    asked = [SimpleNamespace(name=name, weight=1.0) for name in probabilities]
    learn = SimpleNamespace(schedule=schedule, extend=2.0, stop_at=None)
    phase = SimpleNamespace(steps=10, asks=True, extends=True, leaves_far=leaves_far, learning_rate=1.0)
    spec, seen = SimpleNamespace(learn=learn, asked=asked), []
    known, steps = Schedule(spec, phase), []
    for step, values in enumerate(zip(*probabilities.values(), strict=True), 1):
        found = dict(zip(probabilities, values, strict=True))
        seen.append(entry(step).model_copy(update={"probabilities": found}))
        known.saw(seen)
        steps.append(known.steps(step))
        assert Schedule(spec, phase, seen).steps(step) == steps[-1], "it is the same when it is resumed"
    return steps


def test_a_phase_is_extended_until_its_answers_are_near():
    """Of 10 steps the rate would fall after 6; means over 5 steps count."""
    unlikely, likely = [0.5] * 20, [0.9] * 20
    assert scheduled({"q": likely}) == [10] * 20
    assert scheduled({"q": unlikely}) == [10] * 6 + [20] * 14
    assert scheduled({"q": likely, "r": unlikely})[-1] == 20
    near_after_9 = [0.0] * 5 + [1.0] * 15
    assert scheduled({"q": near_after_9}) == [10] * 6 + [20] * 2 + [math.ceil(9 / 0.6)] * 12
    assert scheduled({"q": unlikely}, schedule="constant") == [10] * 20


def test_what_is_far_is_left_to_a_later_phase_that_moves_something_else():
    far, unlikely, likely = [0.05] * 20, [0.5] * 20, [0.9] * 20
    assert scheduled({"q": likely, "r": far}, leaves_far=True) == [10] * 20
    assert scheduled({"q": likely, "r": far})[-1] == 20
    assert scheduled({"q": unlikely, "r": far}, leaves_far=True)[-1] == 20
    late = [0.05] * 7 + [0.5] * 4 + [0.9] * 9
    assert scheduled({"q": likely, "r": late}, leaves_far=True)[-1] == 10, "it does not wait later on"


def test_an_extended_phase_takes_more_steps_at_the_full_rate(run, monkeypatch, quiet):
    monkeypatch.setattr("dualproc_cli.learning.schedule.NEAR", 1.0)
    changes = ["learn.steps=10", "learn.extend=2", "learn.schedule=warmup-stable-decay"]
    never = Bundle.open(run("never", changes)).manifest
    assert (never.outcome.reason, never.outcome.step) == ("steps", 20)
    assert "P(answer) is low; it takes up to 10 steps more" in quiet.file.getvalue()
    assert [step.learning_rate for step in never.metrics[1:13]] == [never.metrics[-1].learning_rate * 8] * 12


def test_stop_at_does_not_wait_for_questions_without_weight(run, monkeypatch):
    ask = CompositeLoss.__call__

    def answered(self, images, rng=None):
        report = ask(self, images, rng)
        certain = {"at-the-line": torch.full((2,), 0.95), "night": torch.full((2,), 0.05)}
        return LossReport(report.loss, report.losses, certain)

    monkeypatch.setattr(CompositeLoss, "__call__", answered)
    changes = ["learn.stop_at=0.9"]
    assert Bundle.open(run("both", changes)).manifest.outcome.reason == "steps"
    outcome = Bundle.open(run("one", [*changes, "questions.1.weight=0"])).manifest.outcome
    assert (outcome.reason, outcome.step) == ("stop_at", WINDOW)


def test_loss_that_is_not_finite_stops_the_run(run, tmp_path, monkeypatch):
    calls, ask = [], CompositeLoss.__call__

    def spoiled(self, images, rng=None):
        calls.append(1)
        report = ask(self, images, rng)
        factor = math.nan if len(calls) == 4 else 1.0
        return LossReport(report.loss * factor, report.losses, report.probabilities)

    monkeypatch.setattr(CompositeLoss, "__call__", spoiled)
    with pytest.raises(RunFailed, match=r"step 4: the loss is nan.*out\.checkpoint\.safetensors, of step 2"):
        run(changes=["learn.checkpoint_every=2"])
    saved = Checkpoint.read(Output(tmp_path / "out").checkpoint)
    assert all(tensor.isfinite().all() for tensor in saved.adapter.values())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_previous_checkpoint(run, tmp_path, monkeypatch, call):
    changes = ["learn.checkpoint_every=2"]

    def no_room(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        after_step(patch, 4, lambda: patch.setattr(os, call, no_room))
        with pytest.raises(RunFailed, match=r"step 4 could not be saved \(No space left.*of step 2"):
            run(changes=changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.checkpoint.safetensors", "spec.yaml"]
    assert Checkpoint.read(Output(tmp_path / "out").checkpoint).step == 2
    assert adapter(run(changes=changes, resume=True)) == adapter(run("straight", changes))


def test_full_disk_at_the_end_loses_nothing(run, tmp_path, monkeypatch):
    def no_room(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("dualproc_cli.learning.control.write_bundle", no_room)
        with pytest.raises(RunFailed, match=r"could not be written.*--resume"):
            run()
    assert Checkpoint.read(Output(tmp_path / "out").checkpoint).step == 6
    assert Bundle.open(run(resume=True)).manifest.outcome.step == 6


# Phases

STEERED = ["learn.where=[noise,conditioning]", "learn.steps=3", "learn.teach.steps=3"]
OPEN = [*STEERED, "questions.1.alternatives=[day]"]


def phases(folder):
    return [entry.phase for entry in Bundle.open(folder).manifest.metrics]


def test_what_is_steered_is_taught_to_the_adapter(run):
    folder = run(changes=STEERED)
    metrics = Bundle.open(folder).manifest.metrics
    assert phases(folder) == ["steer"] * 3 + ["teach"] * 3
    assert [bool(entry.probabilities) for entry in metrics] == [True] * 4 + [False, True]
    assert metrics[0].keep == 0  # steering starts without effect, and so without cost
    assert metrics[2].keep > 0
    assert metrics[3].loss > metrics[5].loss > 0


def test_steering_alone_leaves_the_adapter_without_effect_until_it_is_taught(run):
    ups = AdapterFile.read(run(changes=STEERED)).tensors.items()
    assert all(tensor.any() for key, tensor in ups if ".lora_B." in key)


def test_the_bundle_holds_the_steering_if_it_is_asked_to(run):
    assert "steering.safetensors" not in Bundle.open(run("without", STEERED)).manifest.files
    kept = run("with", [*STEERED, "learn.teach.keep_steering=true"])
    assert "steering.safetensors" in Bundle.open(kept).manifest.files
    steering = read_steering(kept)
    assert steering.where == ("noise", "conditioning")
    assert all(parameter.any() for parameter in steering.offsets.values())
    assert "with steered(pipe" in (kept / "README.md").read_text()


def test_colors_are_taught_by_the_pictures(run):
    assert phases(run(changes=["learn.where=[colors]", *STEERED[1:]])) == ["steer"] * 3 + ["teach"] * 3


def test_weights_come_after_what_was_taught(run):
    changes = ["learn.where=[noise,weights]", "learn.steps=2", "learn.teach.steps=1"]
    folder = run(changes=changes)
    assert phases(folder) == ["steer", "steer", "teach", "weights", "weights"]
    first, second = Bundle.open(folder).manifest.metrics[-2:]
    assert first.keep == pytest.approx(0, abs=1e-6), "held to what was taught"
    assert second.keep > 1e-4


VARIED = ["learn.where=[noise,weights]", "learn.steps=4", "learn.teach.steps=1", "learn.batch_size=4",
          "learn.validation_pictures=0", "prompts.variety=[a pond]"]  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """The prompts of each batch of pictures that the answers are asked about."""
    batches, draw = [], Learner._draw

    def noted(self, count):
        prompts, seeds = draw(self, count)
        batches.append((self.phase.name, set(prompts)))
        return prompts, seeds

    monkeypatch.setattr(Learner, "_draw", noted)
    return batches


def test_weights_are_moved_for_a_variety_of_prompts(run, drawn):
    run(changes=VARIED)
    seen = {phase: set().union(*(found for name, found in drawn if name == phase)) for phase, _ in drawn}
    assert "a pond" not in seen["steer"] | seen["teach"]
    assert "a pond" in seen["weights"]
    assert len(seen["weights"]) > 1
    drawn.clear()
    run("alone", [*VARIED, "learn.variety=1"])
    assert all(found == {"a pond"} for name, found in drawn if name == "weights")


def test_a_variety_of_prompts_resumes_bit_for_bit(run, monkeypatch):
    straight = run("straight", VARIED)
    with monkeypatch.context() as patch:
        after_step(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            run("resumed", VARIED)
    assert adapter(run("resumed", VARIED, resume=True)) == adapter(straight)


@pytest.mark.parametrize("step", [2, 3, 5])  # in the first phase, between the two, in the second
def test_either_phase_resumes_bit_for_bit(run, monkeypatch, step):
    straight = run("straight", STEERED)
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            run("resumed", STEERED)
    resumed = run("resumed", STEERED, resume=True)
    assert adapter(resumed) == adapter(straight)
    assert Bundle.open(resumed).manifest.metrics == Bundle.open(straight).manifest.metrics


KNOWN = ["learn.where=[noise, conditioning]", "learn.steps=3", "learn.teach.steps=4",
         "prompts.variety=[a pond, a ball]", "learn.teach.keep_steering=true"]  # fmt: skip
WORDS = {"a house in the field": "a ball", "a tree": "a tree", "a pond": "a ball"}


@pytest.fixture
def known(monkeypatch, drawn):
    """Prompts have these words, without asking for them; the batches that are drawn."""
    monkeypatch.setattr("dualproc_cli.learning.control.find_words", lambda *_: dict(WORDS))
    return drawn


def test_nothing_is_steered_and_further_prompts_are_taught(run, known, quiet):
    folder = run(changes=KNOWN)
    manifest = Bundle.open(folder).manifest
    assert phases(folder) == ["teach"] * 4
    assert set().union(*(prompts for _, prompts in known)) == set(WORDS)
    assert [bool(entry.probabilities) for entry in manifest.metrics] == [True, False, False, True]
    assert manifest.words == read_steering(folder).words == WORDS
    told = "taught to draw 'a house in the field' as 'a ball', and 1 further prompts likewise"
    assert told in quiet.file.getvalue()
    card = (folder / "README.md").read_text()
    assert "| a house in the field | a ball |" in card
    assert "| a tree | a tree |" not in card
    known.clear()
    run("own", [*KNOWN, "learn.variety=0"])
    assert set().union(*(prompts for _, prompts in known)) <= {"a house in the field", "a tree"}


@pytest.mark.parametrize("step", [1, 3])
def test_words_are_resumed_with_bit_for_bit(run, known, monkeypatch, step):
    straight = run("straight", KNOWN)
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            run("resumed", KNOWN)
    monkeypatch.setattr("dualproc_cli.learning.control.find_words", lambda *_: pytest.fail("they are known"))
    with monkeypatch.context() as patch:
        patch.setattr(Generator, "words", {})
        with pytest.raises(UserError, match=r"its prompts have other words.*--overwrite instead of --resume"):
            run("resumed", KNOWN, resume=True)
    assert adapter(run("resumed", KNOWN, resume=True)) == adapter(straight)


@pytest.fixture
def hopeless(monkeypatch):
    """Steering the conditioning begins anew after its steps, whatever was found."""
    monkeypatch.setattr("dualproc_cli.learning.phases.LOST", 1.1)


@pytest.mark.parametrize("step", [3, 4])  # where it begins anew, and after that
def test_steering_that_leads_nowhere_begins_anew_and_resumes_bit_for_bit(
    run, quiet, monkeypatch, hopeless, step
):
    straight = run("straight", OPEN)
    assert quiet.file.getvalue().count("steer: led nowhere; it begins anew") == 1
    assert phases(straight) == ["steer"] * (3 + 3) + ["teach"] * 3
    rates = [entry.learning_rate for entry in Bundle.open(straight).manifest.metrics]
    assert rates[:3] == rates[3:6]
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match=f"after step {step} of 9"):
            run("resumed", OPEN)
    resumed = run("resumed", OPEN, resume=True)
    assert adapter(resumed) == adapter(straight)
    assert Bundle.open(resumed).manifest.metrics == Bundle.open(straight).manifest.metrics


def test_only_open_answers_begin_anew_and_only_if_they_should(run, hopeless):
    not_so = [[*OPEN, "questions.1.weight=0"], [*OPEN, "learn.steer.from_answers=false"]]
    for changes in (STEERED, *not_so, [*OPEN, "learn.where=[noise]"]):
        assert phases(run(changes=changes, overwrite=True)) == ["steer"] * 3 + ["teach"] * 3


def test_validations_before_steering_began_anew_do_not_count(run, hopeless):
    changes = [*OPEN, "learn.keep_best=verdict", "learn.validate_every=1"]
    found = Bundle.open(run(changes=changes)).manifest
    assert [entry.step for entry in found.validations if entry.phase == "steer"] == [1, 2, 4, 5, 6]


def test_an_answer_that_holds_ends_the_steering_and_not_the_run(run):
    changes = [*STEERED, "learn.steps=9", "learn.stop_at=1e-7"]
    assert phases(run(changes=changes)) == ["steer"] * WINDOW + ["teach"] * 3


# Validation


def validation(step, both, phase="teach"):
    return Validation(step=step, phase=phase, right=both, clean=1.0, right_and_clean=both)


def test_the_latest_of_the_best_validations_is_chosen():
    found = [validation(step, both) for step, both in enumerate([0.2, 0.6, 0.6, 0.5])]
    assert [is_best(found[: count + 1]) for count in range(4)] == [True, True, True, False]


def test_a_phase_settles_when_it_is_good_or_got_worse_twice():
    assert not settled([])
    assert settled([validation(1, 0.98)])
    worse = [validation(step, both) for step, both in enumerate([0.7, 0.5, 0.5])]
    assert not settled(worse[:2])
    assert settled(worse)
    assert not settled([validation(1, 0.7), validation(2, 0.5), validation(3, 0.68)])


def test_without_measures_clean_pictures_are_what_counts():
    found = Validation(step=1, phase="steer", right=None, clean=0.75, right_and_clean=None)
    assert found.score == 0.75


def test_the_best_validated_state_is_kept(run, monkeypatch):
    scores = iter([0.3, 0.9, 0.5, 0.2])

    def validate(self, step, phase):
        both = next(scores)
        return Validation(step=step, phase=phase, right=both, clean=1.0, right_and_clean=both)

    monkeypatch.setattr(Validator, "__init__", lambda self, *arguments: None)
    monkeypatch.setattr(Validator, "validate", validate)
    changes = ["learn.keep_best=verdict", "learn.validate_every=1"]
    best = run("best", [*changes, "learn.steps=6"])
    assert len(phases(best)) == 4  # it got worse twice
    assert [one.step for one in Bundle.open(best).manifest.validations] == [1, 2, 3, 4]
    scores = iter([0.3, 0.9])
    assert adapter(best) != adapter(run("last", ["learn.steps=4"]))
    assert adapter(best) != adapter(run("later", ["learn.steps=6"]))


def test_no_bundle_of_an_untaught_adapter_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Validator, "__init__", lambda self, *arguments: None)
    monkeypatch.setattr(Validator, "validate", lambda self, step, phase: validation(step, 0.5, phase))
    after_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    changes = [*STEERED, "learn.keep_best=verdict", "learn.validate_every=1"]
    with pytest.raises(Interrupted, match=r"after step 2 of 6.*no best state yet"):
        run(changes=changes, keep_best=True)
    assert not (tmp_path / "out").exists()


def test_a_run_ends_with_a_verdict(run):
    folder = run(changes=["learn.validation_pictures=6"])
    manifest = Bundle.open(folder).manifest
    assert manifest.verdict.reason
    assert "report.html" in manifest.files
    for name, words in (("report.html", manifest.verdict.name), ("README.md", manifest.verdict.reason)):
        assert words in (folder / name).read_text()
    without = Bundle.open(run("none", ["learn.validation_pictures=0"])).manifest
    assert without.verdict is None
    assert "report.html" not in without.files


# Refused before any model is loaded


def test_existing_output(run, tmp_path, monkeypatch):
    no_model_is_loaded(monkeypatch)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"already exists.*--overwrite"):
        run()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a bundle"):
        run(overwrite=True)


def test_output_that_cannot_be_written(run, tmp_path, monkeypatch):
    no_model_is_loaded(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        run("file/out")


def test_checkpoints_in_the_way(run, tmp_path, monkeypatch):
    no_model_is_loaded(monkeypatch)
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        run(resume=True)
    checkpoint().write(tmp_path / "out.checkpoint.safetensors")
    with pytest.raises(UserError, match="left by an interrupted run"):
        run()
    with pytest.raises(UserError, match="another spec"):
        run(resume=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rng": torch.zeros(3, dtype=torch.uint8)}, "not those of this run"),
        ({"rng": torch.zeros(3)}, "not those of this run"),
        ({"adapter": {}}, "checkpoint: "),
        ({"phase": "steer"}, "not those of this run"),
        ({"moments": [(torch.zeros(1), torch.zeros(1))]}, "moments have other shapes"),
    ],
)
def test_checkpoints_of_another_run_are_refused(run, tmp_path, monkeypatch, changes, problem):
    with monkeypatch.context() as patch:
        after_step(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            run()
    path = Output(tmp_path / "out").checkpoint
    replace(Checkpoint.read(path), **changes).write(path)
    with pytest.raises(UserError, match=problem):
        run(resume=True)


def test_a_first_checkpoint_that_fails_leaves_nothing_to_resume(run, monkeypatch):
    def no_room(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    after_step(monkeypatch, 1, lambda: monkeypatch.setattr(os, "replace", no_room))
    with pytest.raises(RunFailed, match="there is no checkpoint yet; make room and start again"):
        run(changes=["learn.checkpoint_every=1"])


def test_what_a_killed_run_left_is_removed_and_told(run, tmp_path, quiet):
    (tmp_path / ".out.checkpoint.safetensors.abcd_123.partial").write_bytes(bytes(2**20))
    run(changes=["learn.steps=1"])
    assert "removed, left by a killed run (1.0 MiB)" in quiet.file.getvalue()
    assert sorted(os.listdir(tmp_path)) == ["out", "spec.yaml"]


def test_overwrite_replaces_a_bundle(run):
    changes = ["learn.steps=1"]
    first = adapter(run(changes=changes))
    assert adapter(run(changes=[*changes, "learn.seed=1"], overwrite=True)) != first


def test_progress_on_a_terminal_shows_every_question():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with LearningProgress(console, steps=4, done=1) as progress:
        progress.show([entry(1), entry(2, probability=0.7)], 4)
        progress.say("[stopping]")
    shown = console.file.getvalue()
    assert "weights 2/4" in shown
    assert "P(q)" in shown
    assert "0.60" in shown
    assert "[stopping]" in shown
