"""What the parts of a step cost. Calls are measured from outside, so a step has no code for it."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from dualproc_cli.generator.adapter import layers
from dualproc_cli.learning.learner import Learner
from dualproc_cli.vlm import Vlm
from dualproc_cli.vlm.prefix import CACHES, ENCODED_PICTURES

DECODERS = ("vae", "vqvae", "movq")  # a pipeline has one of these, or draws pixels
Label = str | Callable[[dict[str, Any]], str]  # the part of a call, or a function of its keyword arguments


class Parts:
    """Divides what a counter (seconds, FLOPs) counts among named parts.

    What a part inside another spends is not counted for the outer one, so the parts add up to the total.

    Attributes:
        spent: the count of each part, by name.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        """Start with a counter whose value ``read`` returns."""
        self.spent: dict[str, float] = defaultdict(float)
        self._read = read
        self._open: list[str] = []
        self._mark = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens in the block as part ``name``."""
        self._assign()
        self._open.append(name)
        try:
            yield
        finally:
            self._assign()
            self._open.pop()

    @contextmanager
    def calls_of(self, owner: Any, name: str, label: Label) -> Iterator[None]:
        """Count each call of ``owner.name`` in the block as a part; afterwards ``owner`` is as it was.

        Raises:
            AttributeError: ``owner`` has no such attribute.
        """
        original, own = getattr(owner, name), name in vars(owner)

        @functools.wraps(original)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.part(label if isinstance(label, str) else label(kwargs)):
                return original(*args, **kwargs)

        setattr(owner, name, measured)
        try:
            yield
        finally:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)

    def _assign(self) -> None:
        """Give what was counted since the last call to the innermost open part."""
        now = self._read()
        if self._open:
            self.spent[self._open[-1]] += now - self._mark
        self._mark = now


def step_in_parts(learner: Learner, vlm: Vlm, parts: Parts, main_pass: str) -> None:
    """Take a step of ``learner`` and divide its cost among ``parts``.

    The parts are ``generator`` (text encoders, denoiser, scheduler), ``decode``, ``base picture`` (what
    ``learn.keep`` needs, without its decoding), ``views`` (visual prompts, the VLM's image processor,
    log-probabilities), the VLM's ``main_pass`` (its passes that do not continue another) and its ``suffixes``
    (those that do), ``backward``, ``optimiser`` and ``rest`` (sampling the batch, gradient clipping, the
    transfer from the device).

    Args:
        learner: whose step is taken.
        vlm: the VLM that its criterion asks.
        parts: the counter.
        main_pass: name of the part for the VLM's passes that do not continue another.
    """
    generator = learner.generator

    def is_base(given: dict[str, Any]) -> bool:
        # After a jump, the base picture is an estimate too, drawn without the adapter that learns.
        frozen = any(layer.disable_adapters for layer in layers(generator.denoiser))
        return not given.get("gradient") or (frozen and learner.phase.name == "weights")

    calls: list[tuple[Any, str, Label]] = [
        (generator, "render", lambda given: "base picture" if is_base(given) else "generator"),
        (learner.phase, "criterion", "views"),
        (vlm.model, "forward", lambda given: "suffixes" if _continues(given) else main_pass),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "optimiser"),
    ]
    for name in DECODERS:
        if (decoder := generator.pipeline.components.get(name)) is not None:
            calls.append((decoder, "decode", "decode"))
    with ExitStack() as stack:
        for owner, name, label in calls:
            stack.enter_context(parts.calls_of(owner, name, label))
        stack.enter_context(parts.part("rest"))
        learner.step()


def _continues(given: dict[str, Any]) -> bool:
    """Return whether a pass of the VLM takes the cache or the encoded pictures of an earlier one."""
    return any(given.get(name) is not None for name in (*CACHES, ENCODED_PICTURES))
