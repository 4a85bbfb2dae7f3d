"""What `dualproc bench` measures: the structure of its report, never how long anything takes."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bench.compiled import steps_to_pay
from dualproc_cli.bench.counters import flop_counter, matmul_rate
from dualproc_cli.bench.parts import Parts
from dualproc_cli.bench.report import (
    BenchReport,
    CompilingCost,
    PartCost,
    StepComparison,
    StepCost,
    VlmCost,
)
from dualproc_cli.learning.learner import Learner
from dualproc_cli.vlm import AnswerScorer

CPU = torch.device("cpu")


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def measured(*arguments):
    result = bench(*arguments, "--json", "--device", "cpu", "--steps", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_parts_add_up_and_each_excludes_those_inside():
    now = [0.0]
    parts = Parts(lambda: now[0])

    def work(seconds):
        now[0] += seconds

    with parts.part("step"):
        work(1)
        with parts.part("views"):
            work(2)
            with parts.part("prefix"):
                work(4)
            work(8)
        with parts.part("views"):
            work(16)
    assert parts.spent == {"step": 1, "views": 26, "prefix": 4}


def test_measured_methods_are_restored():
    class Part:
        def work(self, answer):
            return answer

    parts = Parts(lambda: 0.0)
    part = Part()
    with pytest.raises(ZeroDivisionError), parts.calls_of(part, "work", "work"):  # noqa: PT012
        assert part.work(3) == 3
        1 / 0  # noqa: B018
    assert vars(part) == {}
    backward = torch.Tensor.backward
    with parts.calls_of(torch.Tensor, "backward", lambda given: "backward"):
        assert torch.Tensor.backward is not backward
    assert torch.Tensor.backward is backward
    assert parts.spent.keys() == {"work"}
    with pytest.raises(AttributeError), parts.calls_of(part, "play", "work"):
        pass


def test_flops_count_attention_on_the_cpu():
    query = torch.rand(1, 2, 8, 16, requires_grad=True)
    with flop_counter() as counter:
        found = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        forward = counter.get_total_flops()
        found.sum().backward()
    assert forward == 2 * (2 * 2 * 8 * 8 * 16)
    assert counter.get_total_flops() > 2 * forward
    assert matmul_rate(CPU, torch.float32) > 0


def test_bench_of_a_spec(small_spec, tmp_path):
    found = measured(small_spec(tmp_path), "--questions", 1, "--questions", 2, "--batch", 3)
    assert found["batch_size"] == 3
    assert found["matmul_flops_per_second"] > 0
    assert found["memory"] == []
    assert [row["questions"] for row in found["rows"]] == [1, 2]
    common = {"generator", "decode", "base picture", "views", "backward", "optimiser", "rest"}
    for row in found["rows"]:
        assert row["mode"] == "cache"
        assert row["ratio"] == row["full"]["seconds"] / row["shared"]["seconds"]
        assert row["vlm"]["difference"] < 1e-4
        assert row["vlm"]["gradient_difference"] < 1e-3
        assert row["full"]["parts"].keys() == common | {"full forwards"}
        assert row["shared"]["parts"].keys() == common | {"prefix", "suffixes"}
        for step in (row["shared"], row["full"]):
            parts = step["parts"]
            assert all(part["seconds"] >= 0 for part in parts.values())
            assert sum(part["flops"] for part in parts.values()) == step["flops"]
            assert step["pictures_per_second"] == pytest.approx(3 / step["seconds"])
            assert step["peak_bytes"] > 0
            assert parts["generator"]["flops"] > 0
            assert parts["decode"]["flops"] > 0
            assert parts["optimiser"]["flops"] == 0
            assert parts["backward"]["flops"] > parts["generator"]["flops"]


@pytest.mark.parametrize("command", ["bench", "learn"])
def test_bench_runs_what_learning_runs(command, small_spec, tmp_path, monkeypatch):
    """Kernels are deterministic, and the VLM is prepared only at the size at which it is shown pictures."""
    sizes, switches = set(), set()
    prepare, step = AnswerScorer.prepare, Learner.step

    def recording_prepare(scorer, height, width, beside=None):
        sizes.add((height, width))
        return prepare(scorer, height, width, beside)

    def recording_step(learner):
        fills = torch.utils.deterministic.fill_uninitialized_memory
        switches.add((torch.are_deterministic_algorithms_enabled(), fills))
        return step(learner)

    monkeypatch.setattr(AnswerScorer, "prepare", recording_prepare)
    monkeypatch.setattr(Learner, "step", recording_step)
    spec = small_spec(tmp_path, {"vlm": {"image_scale": 0.5}, "learn": {"steps": 1}})
    options = ("--steps", 1, "--questions", 1) if command == "bench" else ("-o", tmp_path / "bundle")
    result = CliRunner().invoke(app, [command, str(spec), "--device", "cpu", *map(str, options)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert sizes == {(32, 32)}
    assert switches == {(True, False)}


def test_more_questions_share_more(generator_folder, vlm_folder):
    models = ("--set", f"generator.model={generator_folder}", "--set", f"vlm.model={vlm_folder}")
    sizes = ("--set", "generator.width=64", "--set", "generator.height=64", "--batch", 2)
    one, five = measured(*models, *sizes, "--questions", 1, "--questions", 5)["rows"]
    assert 0 < one["predicted_bytes"] <= five["predicted_bytes"]
    assert one["shared"]["flops"] < five["shared"]["flops"] < five["full"]["flops"]
    vision = one["full"]["parts"]["full forwards"]["flops"]
    assert five["full"]["parts"]["full forwards"]["flops"] == pytest.approx(5 * vision, rel=0.1)
    assert five["shared"]["parts"]["prefix"]["flops"] < 1.1 * vision


PART = PartCost(seconds=0.25, flops=2e9, share_of_ceiling=0.5)
SHARED = StepCost(0.5, 4.0, 4e9, 0.5, 2**30, {"prefix": PART, "suffixes": PART})
FULL = StepCost(1.0, 2.0, 6e9, 0.4, 2**31, {"full forwards": PART})
ROW = StepComparison(2, "cache", SHARED, FULL, 2.0, VlmCost(0.1, 0.3, 3.0, 0.0, 0.0), predicted_bytes=2**29)
REPORT = BenchReport(
    generator="one",
    vlm="other",
    random_weights=[],
    device="cpu",
    threads=2,
    dtypes=["float32", "bfloat16"],
    width=64,
    height=32,
    denoising_steps=1,
    batch_size=2,
    rounds=1,
    matmul_flops_per_second=8e9,
    memory=["checkpoint-vae"],
    compile=CompilingCost(compiling_seconds=60, seconds=2, plain_seconds=3, pays_after=58),
    rows=[ROW],
)


@pytest.fixture
def printed(monkeypatch):
    """Return what the command prints for a report, its spaces joined."""

    def text(report):
        monkeypatch.setattr("dualproc_cli.bench.bench", lambda *args, **options: report)
        monkeypatch.setenv("COLUMNS", "200")
        return " ".join(bench("--device", "cpu").output.split())

    return text


def test_bench_as_a_table(printed):
    shown = printed(REPORT)
    assert "one and other on cpu, float32 and bfloat16: a step of 2 pictures of 64 x 32" in shown
    assert "Matrix products reach 8 GFLOP/s" in shown
    assert "Memory strategies: checkpoint-vae." in shown
    assert "2 cache 500 1000 2.00 3.00 4.0 4.0 50% 1.00 0.50" in shown
    assert "2 question(s) step ms share GFLOP of matmul full ms prefix 250.0 50% 2.00 50%" in shown
    assert "full forwards 250.0" in shown
    assert "Memory strategies" not in printed(replace(REPORT, memory=[]))


def test_the_table_says_whether_compiling_pays(printed):
    shown = printed(REPORT)
    assert "Compiled, a step takes 2000 ms instead of 3000; compiling took 60 s" in shown
    assert "and pays off after 58 steps" in shown
    assert "and never pays off" in printed(replace(REPORT, compile=replace(REPORT.compile, pays_after=None)))
    assert "Compiled" not in printed(replace(REPORT, compile=None))


@pytest.mark.slow
def test_bench_without_a_spec_is_of_the_miniature():
    found = measured("--questions", 1, "--batch", 1)
    assert (found["generator"], found["vlm"]) == ("miniature", "miniature")
    assert [row["questions"] for row in found["rows"]] == [1]


def test_bench_refuses_what_it_cannot_measure(small_spec, tmp_path):
    spec = small_spec(tmp_path)
    for arguments, expected in (
        ((spec, "--questions", 3), "the spec has 2"),
        ((spec, "--random-weights", "nobody/nothing"), "its shape does not come with dualproc"),
        (
            ("--random-weights", "stabilityai/sdxl-turbo", "--random-weights", "Tongyi-MAI/Z-Image-Turbo"),
            "not a model of the spec",
        ),
        (
            ("--random-weights", "stabilityai/sdxl-turbo", "--set", "generator.quantization=nf4"),
            "generator.quantization: nf4: needs a CUDA device",
        ),
    ):
        result = bench(*arguments, "--device", "cpu")
        assert result.exit_code == 2, (result.output, result.exception)
        (line,) = result.stderr.splitlines()
        assert expected in line


def test_bench_of_compiled_blocks(small_spec, tmp_path, monkeypatch):
    blocks = []
    monkeypatch.setattr(torch, "compile", lambda forward: blocks.append(forward) or forward)
    monkeypatch.setattr("dualproc_cli.bench.compiled.seconds_of", timed([1, 60, 2, 3]))
    setting = ("--set", "generator.compile=true", "--questions", 1)
    found = measured(small_spec(tmp_path), *setting)["compile"]
    assert found == {"compiling_seconds": 60, "seconds": 2, "plain_seconds": 3, "pays_after": 58}
    assert blocks


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [((60, 2, 3), 58), ((60, 2, 2.5), 116), ((60, 3, 2), None), ((60, 2, 2), None), ((1, 2, 3), 0)],
)
def test_compiling_pays_by_what_a_step_saves(seconds, steps):
    assert steps_to_pay(*seconds) == steps


def timed(seconds):
    """Return a clock that does the work and returns the given seconds."""
    given = iter(seconds)

    def seconds_of(work, read):
        work()
        return next(given)

    return seconds_of
