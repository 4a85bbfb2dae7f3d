"""How the values of a spec relate to each other and to the files around it.

The checks run on plain values from which the faulty ones were removed, so that one mistake does not hide
another.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from dualproc_cli.spec.control import RegionSpec, opposite_answer, same_text
from dualproc_cli.spec.faults import KeyPath, did_you_mean, shown
from dualproc_cli.spec.learn import NEED_ALTERNATIVES
from dualproc_cli.spec.models import GeneratorSpec
from dualproc_cli.spec.pictures import picture_fault
from dualproc_cli.spec.weights_files import adapter_fault

Finding: TypeAlias = tuple[KeyPath, str, str]  # path, problem, expected

WHOLE = {name: field.default for name, field in RegionSpec.model_fields.items()}


def relations(data: dict[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield everything in ``data`` that contradicts something else in it or in ``folder``.

    Args:
        data: well-typed values of a spec. Any may be absent; list items may be None, visual prompts empty.
        folder: where the spec lies.
    """
    yield from _prompts(data)
    yield from _questions(data)
    for name, prompt in data.get("visual_prompts", {}).items():
        if "type" in prompt:  # otherwise its other values cannot be interpreted
            yield from _visual_prompt(("visual_prompts", name), prompt, folder)
    yield from _adapters(data, folder)
    yield from _learning(data)
    yield from _measures(data)


def _prompts(data: dict[str, Any]) -> Iterator[Finding]:
    prompts = data.get("prompts", {})
    trained = {same_text(prompt) for prompt in prompts.get("train", []) if prompt}
    for index, prompt in _items(prompts.get("held_out", [])):
        if same_text(prompt) in trained:
            problem = f"{shown(prompt)} is a training prompt too"
            yield ("prompts", "held_out", index), problem, "one never trained on"


def _questions(data: dict[str, Any]) -> Iterator[Finding]:
    questions = data.get("questions", [])
    known = data.get("visual_prompts", {})
    objective = data.get("learn", {}).get("objective")
    yield from _repeated(("questions",), questions, "name")
    for index, question in _items(questions):
        path: KeyPath = ("questions", index)
        alternatives = question.get("alternatives", [])
        yield from _repeated((*path, "alternatives"), alternatives)
        if "answer" in question and question["answer"] in alternatives:
            at = (*path, "alternatives", alternatives.index(question["answer"]))
            yield at, f"{shown(question['answer'])} is the expected answer itself", "other answers only"
        if objective in NEED_ALTERNATIVES and not alternatives and "answer" in question:
            needed = f"answers to choose from, since learn.objective is {objective}"
            yield (*path, "alternatives"), "is missing", needed
        name = question.get("visual_prompt")
        if name is not None and name not in known:
            problem = f"no visual prompt {shown(name)}{did_you_mean(name, list(known))}"
            there = "one of " + ", ".join(known) if known else "a name under visual_prompts, which is empty"
            yield (*path, "visual_prompt"), problem, there
        yield from _wordings(path, question)
        yield from _edges((*path, "region"), {**WHOLE, **(question.get("region") or {})})
    weights = {index: question.get("weight", 1.0) for index, question in _items(questions)}
    if weights and not any(weights.values()):
        yield ("questions", min(weights), "weight"), "the weights of all questions are 0", "one above 0"


def _wordings(path: KeyPath, question: dict[str, Any]) -> Iterator[Finding]:
    trained = {
        same_text(text) for text in (question.get("question"), *question.get("paraphrases", [])) if text
    }
    for key in ("held_out_paraphrases", "opposites"):
        for index, text in _items(question.get(key, [])):
            if same_text(text) in trained:
                yield (*path, key, index), f"{shown(text)} is trained on too", "a wording never trained on"
    turned = opposite_answer(question.get("answer", "Yes"), question.get("alternatives", []))
    if question.get("opposites") and turned is None:
        yield (*path, "alternatives"), "is missing", "the answer to the opposites first"


def _visual_prompt(path: KeyPath, prompt: dict[str, Any], folder: Path) -> Iterator[Finding]:
    yield from _edges(path, prompt)
    yield from _repeated((*path, "points"), prompt.get("points", []), "label")
    fault = picture_fault(prompt["path"], folder) if "path" in prompt else None
    if fault:
        yield (*path, "path"), *fault


def _edges(path: KeyPath, edges: dict[str, Any]) -> Iterator[Finding]:
    for near, far in (("left", "right"), ("top", "bottom")):
        if near in edges and far in edges and not edges[near] < edges[far]:
            yield (*path, far), f"is {shown(edges[far])}", f"more than {near}, {shown(edges[near])}"


def _adapters(data: dict[str, Any], folder: Path) -> Iterator[Finding]:
    adapters = data.get("generator", {}).get("adapters", [])
    for index, adapter in _items(adapters):
        fault = adapter_fault(adapter["path"], folder) if "path" in adapter else None
        if fault:
            yield ("generator", "adapters", index, "path"), *fault
    yield from _repeated(("generator", "adapters"), adapters, "path")


def _learning(data: dict[str, Any]) -> Iterator[Finding]:
    steps = data.get("generator", {}).get("steps", GeneratorSpec.model_fields["steps"].default)
    gradient = data.get("learn", {}).get("gradient", {})
    for key in ("steps", "step"):
        value = gradient.get(key)
        if isinstance(value, int) and value > steps:
            yield ("learn", "gradient", key), f"is {value}", f"at most generator.steps, {steps}"
    if gradient.get("through", "last-steps") == "last-steps":
        if gradient.get("step", "random") != "random":
            yield ("learn", "gradient", "step"), "belongs to x0-jump", "through: x0-jump, or steps instead"
        if gradient.get("renoise"):
            yield ("learn", "gradient", "renoise"), "belongs to x0-jump", "through: x0-jump"


def _measures(data: dict[str, Any]) -> Iterator[Finding]:
    seen = set()
    for index, measure in _items(data.get("evaluate", {}).get("measures", [])):
        path: KeyPath = ("evaluate", "measures", index)
        name, path = (measure.get("name"), (*path, "name")) if isinstance(measure, dict) else (measure, path)
        if not isinstance(name, str):  # pydantic has reported it
            continue
        if name in seen:
            yield path, f"{shown(name)} is given twice", "every name once"
        seen.add(name)


def _items(values: list[Any]) -> Iterator[tuple[int, Any]]:
    """Return index and value of the items that are not None."""
    return ((index, value) for index, value in enumerate(values) if value is not None)


def _repeated(path: KeyPath, values: list[Any], key: str | None = None) -> Iterator[Finding]:
    """Yield each value that repeats an earlier one of the list, at ``path.index``.

    With ``key``, the values are those of this key of a list of mappings, at ``path.index.key``.
    """
    seen = set()
    if key:
        values = [(value or {}).get(key) for value in values]
    for index, value in _items(values):
        if value in seen:
            at = (*path, index, *([key] if key else []))
            yield at, f"{shown(value)} is given twice", "every value once"
        seen.add(value)
