"""Mistakes in a spec are all reported at once, each with its place."""

import os
import re
from functools import partial

import pytest
from PIL import Image
from spec_files import SHORTEST, fault_lines, load_text

from dualproc_cli.spec import SpecError, load_spec


@pytest.fixture
def load(tmp_path):
    """load(text, *settings): the text as a spec file."""
    return partial(load_text, tmp_path)


@pytest.fixture
def faults(tmp_path):
    """faults(text, *settings): the lines of the error."""
    return partial(fault_lines, tmp_path)


def test_all_mistakes_at_once(faults):
    text = """\
name: Horizon Low
learning_rate: 3
generator: {widht: 64, width: 60, dtype: flaot32, revision: 12345}
prompts: {train: [a house, 12], held_out: [A  House]}
visual_prompts:
  area: {type: box, left: 0.5, right: 0.4, top: .nan, bottom: 2, color: rde}
  curve: {type: lin}
  none:
  strip: {type: palette, colors: []}
questions:
  - name: at-the-line
    answer: Yes
    alternatives: [No, Yes]
    visual_prompt: aera
    region: {left: 0.5, right: 0.4, top: 1.0}
    weight: 0
    weight: 0
learn: {objective: choice, gradient: {steps: 3}}
evaluate: {measures: [horizn]}
"""
    found = faults(text, "learn.stepz=5", "questions.7.name=x", "nonsense")
    expected = [
        ":1:7: name: ",
        ":2:1: learning_rate: unknown key; did you mean 'learn.learning_rate'?",
        ":3:13: generator.widht: unknown key; did you mean 'width'?",
        ":3:31: generator.width: is 60 (expected a multiple of 8)",
        ":3:42: generator.dtype: is \"flaot32\"; did you mean 'float32'?",
        ":3:61: generator.revision: is 12345, which is not text in YAML (expected quotes around it: ",
        ":4:28: prompts.train.1: is 12, ",
        ':4:44: prompts.held_out.0: "A House" is a training prompt too',
        ":6:39: visual_prompts.area.right: is 0.4 (expected more than left, 0.5)",
        ":6:49: visual_prompts.area.top: is NaN (expected a finite number)",
        ":6:63: visual_prompts.area.bottom: is 2 (expected at most 1",
        ":6:73: visual_prompts.area.color: ",
        ":7:17: visual_prompts.curve.type: is \"lin\"; did you mean 'line'?",
        ":8:8: visual_prompts.none: is empty",
        ":9:34: visual_prompts.strip.colors: has 0 items (expected at least 1)",
        ":11:5: questions.0.question: is missing (expected what the VLM is asked",
        ':13:24: questions.0.alternatives.1: "Yes" is the expected answer itself',
        ":14:20: questions.0.visual_prompt: no visual prompt \"aera\"; did you mean 'area'?",
        ":15:13: questions.0.region.bottom: is 1.0 (expected more than top, 1.0)",
        ":15:32: questions.0.region.right: is 0.4 (expected more than left, 0.5)",
        ":16:13: questions.0.weight: the weights of all questions are 0",
        ":17:5: questions.0.weight: is given twice, first at spec.yaml:16:5",
        ":18:46: learn.gradient.steps: is 3 (expected at most generator.steps, 1)",
        ":19:23: evaluate.measures.0: is \"horizn\"; did you mean 'horizon'?",
        "--set learn.stepz=5: learn.stepz: unknown key; did you mean 'steps'?",
        "--set nonsense: cannot be read (expected key.path=value",
        "--set questions.7.name=x: questions: is a list without an item 7 (expected an index from 0 to 0)",
    ]
    for line, start in zip(found, expected, strict=True):
        assert line.removeprefix("spec.yaml").startswith(start)
        assert re.search(r" \(expected .+\)$", line)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", ":1:1: the file is empty"),
        ("# nothing", ":1:1: the file is empty"),
        ("- a\n- b", ":1:1: the file is a list"),
        ("just text", ':1:1: the file is "just text"'),
        ("name: [a", ":1:9: "),
        ("name: a\n  b: c", ":2:4: "),
        ("a: 1\n---\nb: 2", ":2:1: "),
        (b"name: a\nd: \xc3\xa9\xff", ":2:5: the byte 0xff is not UTF-8"),
        ("name: a\nd: \x07", ":2:4: the character U+0007 is not allowed"),
        ("name: !!python/object/apply:os.getcwd []", ":1:7: name: has the tag"),
        ("name: *nowhere", ":1:7: "),
        ("name: &a [*a]", ":1:11: alias *a stands inside itself"),
        ("a: &a {<<: *a}", ":1:12: alias *a stands inside itself"),
        ("<<: 3", ":1:5: <<: merges something that is not a mapping"),
        ("? [a]\n: b", ":1:3: has a list or a mapping as a key"),
        ("name: " + "[" * 5000, ":1:30: nested more than"),
        ("name: " + "9" * 5000, ":1:7: name: is too long for a number"),
        ('name: "\\ud83c"', ":1:7: name: escapes half of a character"),
        ('"\\udf33": x', ":1:1: escapes half of a character"),
        ("name: !!int x", ":1:7: name: cannot be read as int"),
        ("x: " + "a" * 300_000, " is too large (expected at most 256 KiB)"),
    ],
)
def test_broken_files(faults, text, start):
    assert any(
        line.replace("spec.yaml:", ":", 1).startswith(start.strip()) or start in line for line in faults(text)
    )


def test_alias_bombs_are_refused(faults):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, last in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
    assert "too large once its aliases are written out" in faults(bomb)[0]
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))
    assert "too large once its aliases are written out" in faults(chain)[0]
    assert "too large" in faults(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 9)}]")[0]


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(SpecError, match=r"cannot be read: .+ \(expected a control spec in YAML\)"):
            load_spec(path)


def test_an_adapter_without_a_path(faults):
    """Mappings that are empty, or that have faults of their own, repeat nothing."""
    (line,) = faults(SHORTEST + "generator: {adapters: [{}]}\n")
    assert "generator.adapters.0.path: is missing" in line


PICTURE = SHORTEST.replace("type: line, position: 0.65", "type: image, path: PATH")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["evaluate.measures=[horizon, horizon]"], 'evaluate.measures.1: "horizon" is given twice'),
        (["learn.objective=choice", "questions.0.alternatives=[]"], "questions.0.alternatives: is missing"),
        (["questions.0.visual_prompt=targt"], "no visual prompt \"targt\"; did you mean 'target'?"),
        (
            ["questions.0={name: a, question: b, answer: Yes, visual_prompt: c}", "visual_prompts={}"],
            "which is empty",
        ),
        (
            ['visual_prompts.p={type: points, points: [{label: "1", x: 0, y: 0}, {label: "1", x: 1, y: 1}]}'],
            "twice",
        ),
        (["learn.gradient.steps=2"], "at most generator.steps, 1"),
        (["name.first=x"], "name: is not a mapping and has no key first"),
        (["questions.-1.weight=2"], "questions: is a list without an item -1"),
        (["learn.steps=[1"], "--set learn.steps=[1: "),
        (["a." * 5000 + "b=1"], "is nested more than 24 levels deep"),
        (["\udcff=1"], "is not UTF-8"),
        (["prompts.\x1b[2J=1"], "prompts.\\u001b[2J: unknown key"),
    ],
)
def test_settings_are_checked_like_the_file(faults, settings, fault):
    (line,) = faults(SHORTEST, *settings)
    assert line.startswith("--set ")
    assert fault in line


def test_pictures(load, faults, tmp_path):
    def fault(name: str) -> str:
        (line,) = faults(PICTURE.replace("PATH", name))
        assert line.startswith("spec.yaml:4:31: visual_prompts.target.path: ")
        return line

    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    Image.new("RGB", (4, 64)).save(tmp_path / "small.png")
    Image.new("1", (9000, 16)).save(tmp_path / "wide.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "vector.eps")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "out.png").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "in.png").symlink_to("good.png")

    assert load(PICTURE.replace("PATH", "good.png")).folder == tmp_path
    assert load(PICTURE.replace("PATH", "in.png")).spec.visual_prompts["target"].mode == "solid"
    for name in ("none.png", "folder.png", "pipe.png"):
        assert "no such file" in fault(name)
    for name in ("../good.png", "out.png"):
        assert "leaves the spec's folder" in fault(name)
    for name in ("text.png", "vector.eps"):
        assert "is not a picture of a known format" in fault(name)
    for name in ("cut.png", "loop.png"):
        assert "cannot be" in fault(name) or "no such file" in fault(name)
    assert "is 4x64 pixels" in fault("small.png")
    assert "is 9000x16 pixels" in fault("wide.png")
    assert "is an absolute path" in fault("/etc/hostname")


def test_a_measure_named_by_a_list_is_a_fault_like_any_other(tmp_path):
    lines = fault_lines(tmp_path, SHORTEST + "evaluate: {measures: [{name: []}]}\n")
    assert lines
    assert all(line.startswith("spec.yaml:11:") and "evaluate.measures.0" in line for line in lines)


def test_held_out_wordings_are_not_those_that_are_trained_on(tmp_path):
    extra = '    paraphrases: ["Is it so?"]\n    held_out_paraphrases: ["Is it thus?", "is  IT so?"]\n'
    (line,) = fault_lines(tmp_path, SHORTEST + extra)
    where, problem = "questions.0.held_out_paraphrases.1", '"is IT so?" is trained on too'
    assert line == f"spec.yaml:12:43: {where}: {problem} (expected a wording never trained on)"
    spec = load_text(
        tmp_path, SHORTEST + extra.replace(', "is  IT so?"', ""), "question_suffix=Yes or no?"
    ).spec
    assert spec.asked[0].held_out_paraphrases == ("Is it thus? Yes or no?",)
    assert "Is it thus? Yes or no?" in spec.question_texts
    assert spec.asked[0].trained_wordings == (
        "Is the horizon at the red line? Yes or no?", "Is it so? Yes or no?"
    )  # fmt: skip


def test_the_opposite_of_a_question_is_not_trained_on_and_its_answer_is_known(tmp_path):
    extra = '    paraphrases: ["Is it so?"]\n    opposites: ["Is it otherwise?", "is  IT so?"]\n'
    (line,) = fault_lines(tmp_path, SHORTEST + extra)
    assert line.startswith('spec.yaml:12:37: questions.0.opposites.1: "is IT so?" is trained on too')
    spec = load_text(tmp_path, SHORTEST + extra.replace(', "is  IT so?"', ""), "question_suffix=So?").spec
    assert spec.asked[0].opposites == ("Is it otherwise? So?",)
    assert "Is it otherwise? So?" in spec.question_texts
    open_answer = SHORTEST.replace("answer: Yes", "answer: at noon").replace("    alternatives: [No]\n", "")
    (line,) = fault_lines(tmp_path, open_answer + '    opposites: ["Is it otherwise?"]\n')
    assert "questions.0.alternatives: is missing (expected the answer to the opposites first)" in line
