"""What the parts of a step use up, measured from outside: the step itself knows nothing of it."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from dualproc_cli.learning.learner import Learner
from dualproc_cli.vlm import Vlm

# What a pass of the VLM is given of an earlier one: the cache, by its new and its old name, or the pictures.
EARLIER = ("cache", "past_key_values", "mm_encoder_outputs")
Label = str | Callable[[dict[str, Any]], str]  # of a call, or how its keyword arguments decide it


class Parts:
    """Shares out what a counter (seconds, FLOPs) counts among named parts.

    A part inside another is not counted in that one too, so all parts together are the whole.

    Attributes:
        spent: what each part used up, by name.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._read = read
        self._open: list[str] = []
        self._mark = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the counter counts in the block goes to ``name``."""
        self._share_out()
        self._open.append(name)
        try:
            yield
        finally:
            self._share_out()
            self._open.pop()

    def _share_out(self) -> None:
        now = self._read()
        if self._open:
            self.spent[self._open[-1]] += now - self._mark
        self._mark = now


def step_in_parts(learner: Learner, vlm: Vlm, parts: Parts, whole: str) -> None:
    """Take a step of ``learner`` and share it out; ``whole`` names the VLM's passes that go on from no other.

    The parts are ``generator`` (text encoders, denoiser, scheduler), ``decode``, ``base picture`` (what
    ``learn.keep`` needs, without its decoding), ``views`` (visual prompts, the VLM's image processor,
    log-probabilities), ``whole`` and ``suffixes`` (the VLM), ``backward``, ``optimiser`` and ``rest`` (the
    draw of the batch, gradient clipping, the one transfer from the device).
    """
    generator = learner.generator
    calls: list[tuple[Any, str, Label]] = [
        (generator, "render", lambda given: "generator" if given.get("gradient") else "base picture"),
        (learner, "criterion", "views"),
        (vlm.model, "forward", lambda given: "suffixes" if _goes_on(given) else whole),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "optimiser"),
    ]
    for name in ("vae", "vqvae", "movq"):
        if (decoder := generator.pipeline.components.get(name)) is not None:
            calls.append((decoder, "decode", "decode"))
    with ExitStack() as stack:
        for owner, name, label in calls:
            stack.enter_context(_labelled(owner, name, label, parts))
        stack.enter_context(parts.part("rest"))
        learner.step()


def _goes_on(given: dict[str, Any]) -> bool:
    return any(given.get(name) is not None for name in EARLIER)


@contextmanager
def _labelled(owner: Any, name: str, label: Label, parts: Parts) -> Iterator[None]:
    """Inside the block, calls of ``owner.name`` are a part; afterwards ``owner`` is as it was."""
    original, own = getattr(owner, name), name in vars(owner)

    @functools.wraps(original)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with parts.part(label if isinstance(label, str) else label(kwargs)):
            return original(*args, **kwargs)

    setattr(owner, name, measured)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
