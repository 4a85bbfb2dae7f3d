"""How the values of a spec relate to each other and to the files around it.

The checks run on plain values, of which the faulty ones have been taken out, so that one mistake hides no other.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from dualproc_cli.spec.faults import KeyPath, did_you_mean, shown
from dualproc_cli.spec.model import GeneratorSpec
from dualproc_cli.spec.pictures import picture_fault

Finding: TypeAlias = tuple[KeyPath, str, str]  # path, problem, expected

# Where a measure finds its target: some question must speak of a visual prompt of this type.
TARGETS = {
    "horizon": "line",
    "palette": "palette",
    "line-weight": "line",
    "depth": "points",
    "composition": "box",
}


def relations(data: dict[str, Any], folder: Path) -> Iterator[Finding]:
    """Everything in ``data`` that contradicts something else in it or in ``folder``.

    Args:
        data: well-typed values of a spec; any of them may be absent, items of lists may be None.
        folder: where the spec lies.
    """
    checks: list[Callable[[dict[str, Any]], Iterable[Finding]]] = [
        _prompts,
        _questions,
        _visual_prompts,
        _learning,
    ]
    for check in checks:
        yield from check(data)
    yield from _measures(data)
    for name, prompt in data.get("visual_prompts", {}).items():
        if prompt.get("type") == "image" and "path" in prompt:
            fault = picture_fault(prompt["path"], folder)
            if fault:
                yield ("visual_prompts", name, "path"), *fault


def _prompts(data: dict[str, Any]) -> Iterator[Finding]:
    prompts = data.get("prompts", {})
    trained = {_same(prompt) for prompt in prompts.get("train", []) if prompt}
    for index, prompt in enumerate(prompts.get("held_out", [])):
        if prompt and _same(prompt) in trained:
            yield (
                ("prompts", "held_out", index),
                f"{shown(prompt)} is a training prompt too",
                "one never trained on",
            )


def _questions(data: dict[str, Any]) -> Iterator[Finding]:
    questions = list(_items(data.get("questions", [])))
    known = list(data.get("visual_prompts", {}))
    choice = data.get("learn", {}).get("objective") == "choice"
    yield from _repeated(("questions",), [question.get("name") for _, question in questions], "name")
    for index, question in questions:
        path: KeyPath = ("questions", index)
        alternatives = question.get("alternatives", [])
        yield from _repeated((*path, "alternatives"), alternatives)
        if "answer" in question and question["answer"] in alternatives:
            at = (*path, "alternatives", alternatives.index(question["answer"]))
            yield at, f"{shown(question['answer'])} is the expected answer itself", "other answers only"
        if choice and not alternatives and "answer" in question:
            yield (
                (*path, "alternatives"),
                "is missing",
                "answers to choose from, since learn.objective is choice",
            )
        name = question.get("visual_prompt")
        if name is not None and name not in known:
            there = "one of " + ", ".join(known) if known else "a name under visual_prompts, which has none"
            yield (
                (*path, "visual_prompt"),
                f"no visual prompt {shown(name)}{did_you_mean(name, known)}",
                there,
            )
    weights = [question.get("weight", 1.0) for _, question in questions]
    if weights and not any(weights):
        yield ("questions", questions[0][0], "weight"), "the weights of all questions are 0", "one above 0"


def _visual_prompts(data: dict[str, Any]) -> Iterator[Finding]:
    for name, prompt in data.get("visual_prompts", {}).items():
        path: KeyPath = ("visual_prompts", name)
        for near, far in (("left", "right"), ("top", "bottom")):
            if near in prompt and far in prompt and not prompt[near] < prompt[far]:
                yield (*path, far), f"is {shown(prompt[far])}", f"more than {near}, {shown(prompt[near])}"
        labels = [point.get("label") if point else None for point in prompt.get("points", [])]
        yield from _repeated((*path, "points"), labels, "label")


def _learning(data: dict[str, Any]) -> Iterator[Finding]:
    steps = data.get("generator", {}).get("steps", GeneratorSpec.model_fields["steps"].default)
    carrying = data.get("learn", {}).get("gradient", {}).get("steps", 1)
    if carrying > steps:
        yield ("learn", "gradient", "steps"), f"is {carrying}", f"at most generator.steps, {steps}"


def _measures(data: dict[str, Any]) -> Iterator[Finding]:
    measures = data.get("evaluate", {}).get("measures", [])
    visual_prompts = data.get("visual_prompts", {})
    spoken_of = [
        visual_prompts.get(question.get("visual_prompt")) for _, question in _items(data.get("questions", []))
    ]
    types = {prompt["type"] for prompt in spoken_of if prompt}
    yield from _repeated(("evaluate", "measures"), measures)
    for index, measure in enumerate(measures):
        if measure in TARGETS and TARGETS[measure] not in types:
            needed = f"a question whose visual prompt is a {TARGETS[measure]}: it holds the target"
            yield ("evaluate", "measures", index), f"{measure} has no target", needed


def _items(values: list[Any]) -> Iterator[tuple[int, Any]]:
    """Index and value of the items that are there."""
    return ((index, value) for index, value in enumerate(values) if value is not None)


def _repeated(path: KeyPath, values: list[Any], key: str | None = None) -> Iterator[Finding]:
    """The values that were there before, at ``path.index`` or ``path.index.key``."""
    for index, value in _items(values):
        if value in values[:index]:
            yield (*path, index, *([key] if key else [])), f"{shown(value)} is there twice", "each only once"


def _same(prompt: str) -> str:
    return " ".join(prompt.casefold().split())
