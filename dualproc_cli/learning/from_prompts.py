"""Where steering the conditioning begins anew, first choice: what leads to prompts that answer as expected.

An offset that is found from nothing may be right before it is clean: of two subjects it made two blots. Where
other prompts are known (``prompts.variety``), some of them may say what is asked for, as "a house at night"
does, and what leads there from "a house in a field" leads to night from others, too.
"""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import product

import torch

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.generator import Embeddings, Generator
from dualproc_cli.learning.from_answers import draw_and_ask, prompts_in_turn
from dualproc_cli.learning.phase import steering_of
from dualproc_cli.spec import ControlSpec

Change = tuple[tuple[str, str], ...]

FEW = 4  # pictures of each known prompt that the VLM is asked about
BETTER = 0.5  # share of the loss of the spec's own prompts that a known one may have at most, to be tried
TRIED = 6  # changes that are tried: of those to such prompts, the ones of the fewest words


@torch.no_grad()
def start_from_prompts(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> bool:
    """Set the offsets to what leads to known prompts, if the loss is lower there: the lowest of `TRIED`.

    A change of words leads from one prompt to another: "in a field" to "at night". What it changes of the
    embeddings hangs on the other words, and is the mean over all pairs of known prompts that it connects.

    Returns:
        Whether they were set.
    """
    train, steering = spec.prompts.train, steering_of(generator)
    nothing = generator.steering_state()

    def ask(prompts: Sequence[str]) -> tuple[Embeddings, float]:
        tokens, loss = draw_and_ask(spec, generator, criterion, prompts, lambda report: report.loss)
        return tokens, loss + spec.learn.keep.conditioning * float(steering.conditioning_cost())

    learned = prompts_in_turn(spec)
    starts = [(ask(learned)[1], nothing)]
    known = {prompt: ask([prompt] * FEW) for prompt in (*train, *spec.further_prompts)}
    better = [prompt for prompt in spec.further_prompts if known[prompt][1] < BETTER * starts[0][0]]
    for pairs in _changes(train, list(known), better)[:TRIED]:
        steering.begin_between(
            *(_together(known[prompt][0] for prompt in end) for end in zip(*pairs, strict=True))
        )
        starts.append((ask(learned)[1], generator.steering_state()))
        generator.load_steering_state(nothing)
    _, best = min(starts, key=lambda start: start[0])
    generator.load_steering_state(best)
    steering.hold()  # it is as much what the generator was trained on as the spec's own prompts are
    return best is not nothing


def _changes(
    train: Sequence[str], known: Sequence[str], better: Sequence[str]
) -> list[list[tuple[str, str]]]:
    """Return the pairs of prompts that each change connects, the change of the fewest words first.

    They are all changes from a prompt of ``train`` to one of ``better``, and connect others of these as well.
    """
    pairs: dict[Change, list[tuple[str, str]]] = {}
    for one, other in product(known, better):
        pairs.setdefault(_change(one, other), []).append((one, other))
    wanted = dict.fromkeys(_change(one, other) for one, other in product(train, better) if one != other)
    found = sorted(wanted, key=lambda change: sum(len(part.split()) for ends in change for part in ends))
    return [pairs[change] for change in found]


def _change(one: str, other: str) -> Change:
    """Return which words are replaced by which, in their order."""
    before, after = one.split(), other.split()
    return tuple(
        (" ".join(before[a:b]), " ".join(after[c:d]))
        for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if tag != "equal"
    )


def _together(found: Iterable[Embeddings]) -> Embeddings:
    parts = list(found)
    return {key: [one for part in parts for one in part[key]] for key in parts[0]}
