"""Prompts that take the words of known ones: which, and what is taught then."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from dualproc_cli.drawing import validation_seeds
from dualproc_cli.learning.words import FEW, SURE, changed, find_words
from dualproc_cli.spec import load_spec

ANSWER = ["a house at night", "a ball at night"]
VARIETY = f"prompts.variety=[{', '.join(ANSWER)}, a ball in a field, a lamp in front of a ball, a tree]"
OPEN = ["prompts.train=[a house in a field, a ball by the sea]", VARIETY, "learn.where=[conditioning]"]
DRAWN = {"a house in a field": "a house at night", "a ball by the sea": "a ball at night"}


class Asked:
    """A generator whose pictures are numbers of prompts and seeds, and a VLM that knows which answer."""

    def __init__(self, answers):
        """``answers`` gives P(answer) of a prompt at a seed."""
        self.answers, self.prompts, self.drawn = answers, [], 0
        self.without_adapter = nullcontext

    def at_once(self, count, wanted):
        return 3

    def render(self, prompts, seeds):
        assert len(prompts) == len(seeds) <= 3
        self.drawn += len(prompts)
        self.prompts += [prompt for prompt in prompts if prompt not in self.prompts]
        return [*zip(prompts, seeds, strict=True)]

    def __call__(self, images):
        found = torch.tensor([self.answers(*image) for image in images])
        certain = torch.ones(len(images))
        return SimpleNamespace(probabilities={"at-the-line": certain, "night": found, "clean": 0 * certain})


def words(small_spec, tmp_path, answers, *changes):
    asked = Asked(answers)
    return find_words(load_spec(small_spec(tmp_path), [*OPEN, *changes]).spec, asked, asked), asked


def test_words_are_those_of_the_nearest_prompt_that_answers(small_spec, tmp_path):
    """A further prompt takes some as well, and none that would say less than it does."""
    found, asked = words(small_spec, tmp_path, lambda prompt, seed: float(prompt in ANSWER))
    others = {"a ball in a field": "a ball at night", "a tree": "a house at night"}
    assert found == DRAWN | others | {prompt: prompt for prompt in ANSWER}
    assert asked.drawn == 7 * FEW + 2 * SURE


def test_of_equals_the_likeliest_is_taken(small_spec, tmp_path):
    known = {"a house at night": 0.92, "a house in snow": 0.97, "a ball at night": 1.0}
    found, _ = words(
        small_spec,
        tmp_path,
        lambda prompt, seed: known.get(prompt, 0.5),
        "prompts.train=[a house outside]",
        f"prompts.variety=[{', '.join(known)}]",
    )
    assert found["a house outside"] == "a house in snow"


def test_a_prompt_that_answers_by_chance_is_not_taken(small_spec, tmp_path):
    first = validation_seeds(SURE)[:FEW]

    def answers(prompt, seed):
        return float(prompt == "a house at night" or (prompt in ANSWER and seed in first))

    found, _ = words(small_spec, tmp_path, answers)
    assert found["a ball by the sea"] == "a house at night"


def test_a_prompt_that_answers_already_keeps_its_words(small_spec, tmp_path):
    own = "a house in a field"
    found, _ = words(small_spec, tmp_path, lambda prompt, seed: float(prompt in (own, *ANSWER)))
    assert found[own] == own
    assert found["a ball by the sea"] == "a ball at night"


@pytest.mark.parametrize(
    ("answers", "changes"),
    [
        (lambda prompt, seed: 0.85, ()),
        (lambda prompt, seed: 1.0, ()),
        (lambda prompt, seed: float(prompt in ANSWER), ["learn.steer.from_prompts=false"]),
        (lambda prompt, seed: float(prompt in ANSWER), ["learn.where=[noise]"]),
        (lambda prompt, seed: float(prompt in ANSWER), ["prompts.variety=[]"]),
    ],
    ids=["none answers", "all answer already", "not wanted", "another thing is steered", "none known"],
)
def test_otherwise_there_are_none(small_spec, tmp_path, answers, changes):
    assert words(small_spec, tmp_path, answers, *changes)[0] == {}


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("a house in a field", "a house at night", 3),
        ("a house", "a ball", 1),
        ("a tree", "a tree in front of a ball", 5),
        ("a tree", "a tree", 0),
    ],
)
def test_words_that_differ_are_counted(one, other, count):
    assert changed(one, other) == changed(other, one) == count
