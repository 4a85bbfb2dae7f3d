"""What `dualproc bench` measures: the structure of it, never how long anything takes."""

import json
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bench.counters import flop_counter, matmul_rate
from dualproc_cli.bench.parts import Parts, _labelled

CPU = torch.device("cpu")


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def measured(*arguments):
    result = bench(*arguments, "--json", "--device", "cpu", "--steps", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_parts_are_the_whole_and_each_is_without_those_inside():
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


def test_what_is_measured_is_left_as_it_was():
    class Part:
        def work(self, answer):
            return answer

    parts = Parts(lambda: 0.0)
    part = Part()
    with pytest.raises(ZeroDivisionError), _labelled(part, "work", "work", parts):  # noqa: PT012
        assert part.work(3) == 3
        1 / 0  # noqa: B018
    assert vars(part) == {}
    backward = torch.Tensor.backward
    with _labelled(torch.Tensor, "backward", lambda given: "backward", parts):
        assert torch.Tensor.backward is not backward
    assert torch.Tensor.backward is backward
    assert parts.spent.keys() == {"work"}


def test_flops_count_attention_on_the_cpu():
    query = torch.rand(1, 2, 8, 16, requires_grad=True)
    with flop_counter() as counter:
        found = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        forward = counter.get_total_flops()
        found.sum().backward()
    assert forward == 2 * (2 * 2 * 8 * 8 * 16)
    assert counter.get_total_flops() > 2 * forward
    assert matmul_rate(CPU, torch.float32) > 0


@pytest.mark.parametrize("questions", [1, 2])
def test_bench_of_a_spec(small_spec, tmp_path, questions):
    found = measured(small_spec(tmp_path), "--questions", questions, "--batch", 3)
    assert found["batch_size"] == 3
    assert found["matmul_flops_per_second"] > 0
    (row,) = found["rows"]
    assert row["questions"] == questions
    assert row["mode"] == "cache"
    assert row["ratio"] > 0
    assert row["vlm"]["difference"] < 1e-4
    assert row["vlm"]["gradient_difference"] < 1e-3
    common = {"generator", "decode", "base picture", "views", "backward", "optimiser", "rest"}
    assert row["full"]["parts"].keys() == common | {"full forwards"}
    assert row["shared"]["parts"].keys() == common | {"prefix", "suffixes"}
    for way in ("shared", "full"):
        parts = row[way]["parts"]
        assert all(part["seconds"] >= 0 for part in parts.values())
        assert sum(part["flops"] for part in parts.values()) == row[way]["flops"]
        assert row[way]["pictures_per_second"] == pytest.approx(3 / row[way]["seconds"])
        assert row[way]["peak_bytes"] > 0
        assert parts["generator"]["flops"] > 0
        assert parts["decode"]["flops"] > 0
        assert parts["optimiser"]["flops"] == 0
        assert parts["backward"]["flops"] > parts["generator"]["flops"]


def test_more_questions_share_more(generator_folder, vlm_folder):
    models = ("--set", f"generator.model={generator_folder}", "--set", f"vlm.model={vlm_folder}")
    sizes = ("--set", "generator.width=64", "--set", "generator.height=64", "--batch", 2)
    one, five = measured(*models, *sizes, "--questions", 1, "--questions", 5)["rows"]
    assert one["shared"]["flops"] < five["shared"]["flops"] < five["full"]["flops"]
    vision = one["full"]["parts"]["full forwards"]["flops"]
    assert five["full"]["parts"]["full forwards"]["flops"] == pytest.approx(5 * vision, rel=0.1)
    assert five["shared"]["parts"]["prefix"]["flops"] < 1.1 * vision


def test_bench_as_a_table(small_spec, tmp_path):
    shown = bench(small_spec(tmp_path), "--device", "cpu", "--steps", 1).output
    assert "2 question(s)" in shown
    assert "Matrix products reach" in shown


@pytest.mark.slow
def test_bench_without_a_spec_is_of_the_miniature():
    found = measured("--questions", 1, "--questions", 5)
    assert (found["generator"], found["vlm"]) == ("miniature", "miniature")
    assert [row["questions"] for row in found["rows"]] == [1, 5]


def test_bench_refuses_what_it_cannot_measure(small_spec, tmp_path):
    spec = small_spec(tmp_path)
    for arguments, expected in (
        ((spec, "--questions", 3), "the spec has 2"),
        ((spec, "--random-weights", "nobody/nothing"), "its shape does not come with dualproc"),
        (
            ("--random-weights", "stabilityai/sdxl-turbo", "--random-weights", "Tongyi-MAI/Z-Image-Turbo"),
            "neither the generator nor",
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


def test_bench_says_whether_compiling_pays(small_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr("dualproc_cli.bench.compiled.seconds_of", timed([1, 60, 2, 3]))
    setting = ("--set", "generator.compile=true", "--questions", 1)
    found = measured(small_spec(tmp_path), *setting)["compile"]
    assert found == {"compiling_seconds": 60, "seconds": 2, "plain_seconds": 3, "pays_after": 58}
    monkeypatch.setattr("dualproc_cli.bench.compiled.seconds_of", timed([1, 60, 3, 2]))
    result = bench(small_spec(tmp_path), *setting, "--device", "cpu", "--steps", 1)
    assert "Compiled, a step takes 3000 ms instead of 2000" in result.output
    assert "never pays" in result.output


def timed(seconds):
    """In place of a clock: does the work, and says what is given."""
    given = iter(seconds)

    def seconds_of(work, read):
        work()
        return next(given)

    return seconds_of
