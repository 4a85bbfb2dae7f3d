"""Other words for the prompts: where known prompts answer as expected, nothing need be looked for.

"a house at night" is what "a house in a field" should become. Where such prompts are known
(``prompts.variety``), the frozen generator is given their words in place of the spec's own, and there is
nothing left to steer: what it draws from them is what it was trained on. An offset of the embeddings that is
found from nothing may content the VLM with a ball in the shape of a house.
"""

from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache

import torch

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import Generator
from dualproc_cli.learning.phase import asked_at_once, least_likely
from dualproc_cli.spec import ControlSpec

FEW, SURE = 4, 24  # pictures by which a prompt is found to answer, and by which that is made sure of
ANSWERS = 0.9  # P that the least likely answer must have, in the mean over the pictures


@torch.no_grad()
def find_words(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> dict[str, str]:
    """Return, for each prompt that is learned on, a known one that answers all questions as expected.

    It is the one that differs in the fewest words; of equals, the likeliest. A prompt that answers already
    keeps its words. What is taught of a few prompts need not hold for others, so further prompts are returned
    with their words as well: those that answer already too, which should stay as they are, but not those that
    would be shortened by more than the spec's own, and say less.

    Returns:
        Words by prompt; empty if a prompt that is learned on has none, or if none needs any.
    """
    if not (spec.learn.steer.from_prompts and "conditioning" in spec.steered and spec.further_prompts):
        return {}

    @cache  # the miniature's further prompts are often the spec's own as well
    def likely(prompt: str, count: int) -> float:
        seeds, found = validation_seeds(count), []
        for rows in asked_at_once(spec, generator, count):
            with generator.without_adapter():
                images = generator.render([prompt] * len(seeds[rows]), seeds[rows])
            found.append(least_likely(criterion(images), spec.questions))
        return float(torch.cat(found).mean())

    train, further = spec.prompts.train, spec.further_prompts
    known = {prompt: likely(prompt, FEW) for prompt in (*train, *further)}
    answers = {prompt: value for prompt, value in known.items() if value >= ANSWERS}
    while answers:
        words = {prompt: _nearest(prompt, answers) for prompt in train}
        unsure = [other for other in dict.fromkeys(words.values()) if likely(other, SURE) < ANSWERS]
        if not unsure:
            if all(prompt == other for prompt, other in words.items()):
                return {}
            most = max(0, *(_shortened(*change) for change in words.items()))
            others = {prompt: _nearest(prompt, answers) for prompt in further}
            return words | {one: other for one, other in others.items() if _shortened(one, other) <= most}
        for prompt in unsure:
            del answers[prompt]
    return {}


def changed(one: str, other: str) -> int:
    """Return in how many words two prompts differ."""
    before, after = one.split(), other.split()
    parts = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for tag, a, b, c, d in parts if tag != "equal")


def _shortened(one: str, other: str) -> int:
    return len(one.split()) - len(other.split())


def _nearest(prompt: str, answers: Mapping[str, float]) -> str:
    return min(answers, key=lambda other: (changed(prompt, other), -answers[other]))
