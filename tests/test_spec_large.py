"""Large specs: the time they take is proportional to their size, and long lists of mistakes are cut."""

import time

import pytest
from spec_files import fault_lines, load_text

from dualproc_cli.spec.faults import MOST

HEAD = "name: large\nprompts: {train: [a house]}\n"


def questions(count: int, text: str) -> str:
    return "questions:\n" + "".join(f"- {text.format(number)}\n" for number in range(count))


UNKNOWN = "".join(f"k{number}: 1\n" for number in range(20_000))
REPEATED = questions(6000, "{{name: same, question: a, answer: y}}")
NO_SUCH_PROMPT = questions(3000, "{{name: q{0}, question: a, answer: y, visual_prompt: v{0}}}")


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (questions(1, "{{name: a, question: b, answer: c}}") + UNKNOWN, 20_000),
        (REPEATED, 5999),
        (NO_SUCH_PROMPT, 3000),
    ],
    ids=["unknown keys", "repeated names", "unknown visual prompts"],
)
def test_a_long_list_of_mistakes_is_cut(tmp_path, text, mistakes):
    started = time.monotonic()
    lines = fault_lines(tmp_path, HEAD + text)
    assert time.monotonic() - started < 15  # two to four on one core
    assert len(lines) == MOST + 1
    assert lines[-1] == f"and {mistakes - MOST:,} more mistakes"
    assert len("\n".join(lines)) < 60_000
    assert [int(line.split(":")[1]) for line in lines[:MOST]] == sorted(
        int(line.split(":")[1]) for line in lines[:MOST]
    )


def test_many_answers_that_differ(tmp_path):
    answers = ", ".join(f"a{number}" for number in range(15_000))
    text = HEAD + f"questions: [{{name: a, question: b, answer: y, alternatives: [{answers}]}}]\n"
    started = time.monotonic()
    assert len(load_text(tmp_path, text).spec.questions[0].alternatives) == 15_000
    assert time.monotonic() - started < 15
