"""Where steering the conditioning begins: at what leads to a known prompt whose pictures answer as expected.

An offset that is found from nothing, by the answers' gradient alone, is right before it is clean: of two
subjects it made two blots. But where other prompts are known (``prompts.variety``), one of them may say what
is asked for: "a house at night". What leads there from "a house in a field" leads to night from others, too.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.generator import Embeddings, Generator
from dualproc_cli.learning.from_answers import PICTURES, draw_and_ask
from dualproc_cli.learning.phase import steering_of
from dualproc_cli.spec import ControlSpec

FEW = 4  # pictures of each known prompt that the VLM is asked about
BETTER = 0.5  # share of the loss of the spec's own prompts that a known one may have at most, to be tried
TRIED = 6  # known prompts that are tried: of those, the ones that change the fewest words


@torch.no_grad()
def start_from_prompts(spec: ControlSpec, generator: Generator, criterion: CompositeLoss) -> bool:
    """Set the offsets to what leads to a known prompt, if the loss is lower there: the lowest of `TRIED`.

    The way to a known prompt is that from the spec's prompt that shares most words with it. Changing a word
    for another subject's, it would change the subject of other prompts too.

    Returns:
        Whether they were set.
    """
    train, steering = spec.prompts.train, steering_of(generator)
    nothing = generator.steering_state()

    def ask(prompts: Sequence[str]) -> tuple[Embeddings, float]:
        tokens, loss = draw_and_ask(generator, criterion, prompts, lambda report: report.loss)
        return tokens, loss + spec.learn.keep.conditioning * float(steering.conditioning_cost())

    learned = [train[index % len(train)] for index in range(PICTURES)]
    starts = [(ask(learned)[1], nothing)]
    known = {prompt: ask([prompt] * FEW) for prompt in (*train, *spec.further_prompts)}
    better = [prompt for prompt in spec.further_prompts if known[prompt][1] < BETTER * starts[0][0]]
    ways = [max((_alike(own, prompt), own, prompt) for own in train) for prompt in better]
    for _, own, prompt in sorted(ways, key=lambda way: (-way[0], known[way[2]][1]))[:TRIED]:
        steering.begin_between(known[own][0], known[prompt][0])
        starts.append((ask(learned)[1], generator.steering_state()))
        generator.load_steering_state(nothing)
    _, best = min(starts, key=lambda start: start[0])
    generator.load_steering_state(best)
    steering.hold()  # it is as much what the generator was trained on as the spec's own prompts are
    return best is not nothing


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one.split(), other.split()).ratio()
