"""What unquoted scalars of a spec mean: the core schema of YAML 1.2, and what is said of YAML 1.1."""

import math

import pytest
import yaml
from spec_files import SHORTEST, fault_lines, load_text

from dualproc_cli.spec.core_schema import CoreLoader, in_yaml_1_1
from dualproc_cli.spec.source import read_yaml

# From the table of examples in the specification of YAML 1.2.2, 10.3.2, and what only YAML 1.1 knows.
SCALARS = {
    "null": None, "Null": None, "NULL": None, "~": None, "": None, "true": True, "True": True, "TRUE": True,
    "false": False, "0": 0, "0o7": 7, "0x3A": 58, "-19": -19, "+12": 12, "0.": 0.0, "-0.0": 0.0, ".5": 0.5,
    "+12e03": 12000.0, "-2E+05": -200000.0, "1e-4": 1e-4, ".inf": math.inf, "-.Inf": -math.inf, "010": 10,
    "09": 9, "no": "no", "Yes": "Yes", "on": "on", "OFF": "OFF", "y": "y", "1:30": "1:30", "1_000": "1_000",
    "0b11": "0b11",
    "2001-12-14": "2001-12-14", "=": "=", "0O7": "0O7", "1e": "1e", "tRUE": "tRUE", "0x": "0x",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_of_the_core_schema(text):
    tree, faults = read_yaml(f"a: {text}", lambda mark: None, "spec")
    assert faults == []
    assert tree.data["a"] == SCALARS[text]
    assert type(tree.data["a"]) is type(SCALARS[text])


def test_other_loaders_are_left_alone():
    assert yaml.safe_load("no") is False
    assert CoreLoader("no").get_single_data() == "no"


def test_what_yaml_1_1_had():
    found = {
        text: in_yaml_1_1(text) for text in ("010", "1:30", "no", "On", "1_000", "0b11", "2001-12-14", "a")
    }
    assert found == {
        "010": 8, "1:30": 90, "no": False, "On": True, "1_000": 1000, "0b11": 3, "2001-12-14": "2001-12-14",
        "a": "a",
    }  # fmt: skip


def test_words_are_text_and_numbers_decimal(tmp_path, caplog):
    text = SHORTEST.replace("[a house in a field]", "[no, 1:30, On]") + "learn: {steps: 010}\n"
    spec = load_text(tmp_path, text).spec
    assert spec.prompts.train == ("no", "1:30", "On")
    assert spec.learn.steps == 10
    (message,) = caplog.messages
    assert message.endswith("spec.yaml:11:16: learn.steps: 010 is 10, as YAML 1.2 has it; YAML 1.1 had 8")


def test_an_answer_is_taken_as_written_without_a_word(tmp_path, caplog):
    assert load_text(tmp_path, SHORTEST.replace("[No]", "[007]")).spec.questions[0].alternatives == ("007",)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("key", "written", "before"),
    [("learn.steps", "1:30", "90"), ("learn.steps", "1_000", "1000"), ("generator.compile", "no", "false")],
)
def test_a_text_that_was_something_else_is_named(tmp_path, key, written, before):
    part, _, last = key.partition(".")
    (line,) = fault_lines(tmp_path, SHORTEST + f"{part}: {{{last}: {written}}}\n")
    assert f'is "{written}", which is text in YAML 1.2 and was {before} in YAML 1.1 (expected' in line


@pytest.mark.parametrize("text", ["[Is it night?]", "{a: Is it night?, b: c}", "{a: Is it? or not}"])
def test_a_question_mark_in_flow_style_is_to_be_quoted(tmp_path, text):
    (line,) = fault_lines(tmp_path, f"name: a\nquestions: [{text}]\n")
    assert line.startswith(
        f"spec.yaml:2:{13 + text.index('?')}: a question mark cannot stand in an unquoted text"
    )
    assert "quotes around the text" in line
