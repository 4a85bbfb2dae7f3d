"""The memory plan of a run: which strategies it uses on its device, and how models are loaded with them."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch

from dualproc_cli.device import free_bytes, pick_device
from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator, build_generator, load_generator
from dualproc_cli.memory.estimate import (
    Estimate,
    estimate_drawing,
    estimate_evaluation,
    estimate_learning,
    readable,
)
from dualproc_cli.memory.strategies import (
    STRATEGIES,
    MicroBatches,
    Strategy,
    TwoDevices,
    change_generator,
    change_vlm,
    named,
    with_one_more,
)
from dualproc_cli.models.quantization import quantization
from dualproc_cli.models.source import find_model
from dualproc_cli.spec import GeneratorSpec, LoadedSpec, VlmSpec
from dualproc_cli.vlm import Vlm, build_vlm, load_vlm

HEADROOM = 0.92  # of the free memory: the rest goes to kernels' workspaces and to fragmentation
# Models whose files are this many times smaller than the budget are taken to fit, without an estimate.
LARGE = 50


@dataclass(frozen=True)
class MemoryPlan:
    """How a run fits into the memory of its device.

    Usage::

        plan = plan_learning(loaded, device)
        generator, vlm = plan.load_generator(), plan.load_vlm()
        ...                                  # out of memory
        plan = plan.next()

    Attributes:
        device: the generator's device.
        generator: the generator's part of the spec, without strategies.
        vlms: the VLMs' parts of the spec, without strategies; the one that is trained against comes first.
        prompts: the prompts that will be drawn.
        texts: the texts that the VLMs will be given.
        available: the strategies that this run could use on its device, in the order of preference.
        strategies: the strategies that it uses.
        estimate: the memory that it needs with them; None if it was not estimated.
        budget: the bytes of the device that it may use.
        reason: one line for the user; may be empty.
    """

    device: torch.device
    generator: GeneratorSpec
    vlms: tuple[VlmSpec, ...]
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    available: tuple[Strategy, ...]
    strategies: tuple[Strategy, ...] = ()
    estimate: Estimate | None = None
    budget: int = 0
    reason: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the strategies that it uses, as in ``memory`` of a spec or of a bundle's manifest."""
        return [strategy.name for strategy in self.strategies]

    def next(self) -> "MemoryPlan | None":
        """Return the plan with one more strategy, after running out of memory; None if there is no other."""
        found = next((one for one in self.available if _is_new(one, self.strategies)), None)
        if found is None:
            return None
        return replace(self, strategies=with_one_more(self.strategies, found), estimate=None, reason="")

    def load_generator(self, random: Collection[str] = ()) -> Generator:
        """Load the generator with the strategies applied.

        Args:
            random: names of models that get random weights.

        Raises:
            UserError: it cannot be loaded.
        """
        spec = change_generator(self.generator, self.strategies)
        if spec.model in random:
            generator = build_generator(spec, self.device, "random", self.prompts)
        else:
            generator = load_generator(spec, self.device)
        for strategy in self.strategies:
            strategy.apply(generator, self.prompts)
        generator.strategies = self.names
        return generator

    def load_vlm(self, index: int = 0, random: Collection[str] = ()) -> Vlm:
        """Load VLM ``index`` with the strategies applied; ``random`` and errors are as in `load_generator`.

        Load the generator first: its strategies free memory.
        """
        spec, device = change_vlm(self.vlms[index], self.strategies), self.device
        for strategy in self.strategies:
            device = strategy.vlm_device(device)
        device = pick_device(spec.device, "vlm.device") if spec.device else device
        if spec.model in random:
            return build_vlm(spec, device, "random", self.texts)
        return load_vlm(spec, device)


def plan_learning(loaded: LoadedSpec, device: torch.device) -> MemoryPlan:
    """Add one strategy after another until learning fits into the free memory of the device.

    If ``memory`` in the spec is a list, exactly those strategies are used. Models that are small for the
    device, and those whose memory cannot be estimated, get no strategy.

    Raises:
        UserError: the device does not support the quantization in the spec.
    """
    plan = _plan(loaded, (loaded.spec.vlm,), device)
    learn = loaded.spec.learn
    largest = max(learn.batch_size, learn.teach.batch_size if loaded.spec.steered else 1)
    if learn.micro_batch != "auto" or largest == 1:
        others = tuple(one for one in plan.available if not isinstance(one, MicroBatches))
        plan = replace(plan, available=others)
    if not isinstance(loaded.spec.memory, str):
        reason = f"memory: {', '.join(loaded.spec.memory) or 'no strategy'}, as the spec says"
        return replace(_checked(plan), strategies=named(loaded.spec.memory), reason=reason)
    return _fitted(plan, (), lambda taken: estimate_learning(loaded, plan.device, taken))


def plan_evaluation(loaded: LoadedSpec, taken: Sequence[str], batch: int, device: torch.device) -> MemoryPlan:
    """Plan for drawing ``batch`` pictures at once and asking every VLM of the spec about them.

    Args:
        loaded: the spec of a bundle.
        taken: names of the strategies used while learning; the plan starts with them, and adds none if
            ``memory`` in the spec is a list.
        batch: the number of pictures that are drawn at once.
        device: the generator's device.

    Raises:
        UserError: the device does not support the quantization in the spec.
    """
    vlms = [vlm for vlm in (loaded.spec.vlm, loaded.spec.evaluate.vlm) if vlm is not None]
    plan = _plan(loaded, tuple(vlms), device)
    if not isinstance(loaded.spec.memory, str):
        return replace(_checked(plan), strategies=_usable(taken, plan))
    return _fitted(
        plan, taken, lambda strategies: estimate_evaluation(loaded, batch, plan.device, strategies)
    )


def plan_drawing(
    spec: GeneratorSpec,
    prompts: Sequence[str],
    taken: Sequence[str],
    batch: int,
    device: torch.device,
    more: bool = True,
) -> MemoryPlan:
    """Plan for drawing ``batch`` pictures at once with a generator alone.

    Args:
        spec: of the generator.
        prompts: what will be drawn.
        taken: names of the strategies used while learning; the plan starts with them.
        batch: the number of pictures that are drawn at once.
        device: the generator's device.
        more: whether strategies may be added to those.

    Raises:
        UserError: the device does not support the quantization in the spec.
    """
    available = tuple(one for one in _available(spec, (), device) if one.helps_drawing)
    plan = MemoryPlan(device, spec, (), tuple(prompts), (), available)
    if not more:
        return replace(_checked(plan), strategies=_usable(taken, plan))
    return _fitted(plan, taken, lambda strategies: estimate_drawing(spec, prompts, batch, device, strategies))


def _plan(loaded: LoadedSpec, vlms: tuple[VlmSpec, ...], device: torch.device) -> MemoryPlan:
    spec = loaded.spec
    if spec.generator.device:
        device = pick_device(spec.generator.device, "generator.device")
    for vlm in vlms:
        if vlm.device:
            pick_device(vlm.device, "vlm.device")  # refused before anything is loaded
    return MemoryPlan(
        device=device,
        generator=loaded.generator,
        vlms=vlms,
        prompts=(*spec.prompts.all, *spec.variety),
        texts=spec.question_texts,
        available=_available(spec.generator, vlms, device),
    )


def _available(
    generator: GeneratorSpec, vlms: Sequence[VlmSpec], device: torch.device
) -> tuple[Strategy, ...]:
    """Return the strategies that ``device`` supports; what the user quantised is not quantised again."""
    apart = any(vlm.device for vlm in vlms)
    quantized = {generator.quantization, *(vlm.quantization for vlm in vlms)} != {"none"}
    return tuple(
        one
        for one in STRATEGIES
        if one.available(device)
        and not (quantized and one.changes_weights)
        and not (apart and isinstance(one, TwoDevices))
    )


def _checked(plan: MemoryPlan) -> MemoryPlan:
    """Return the plan with its budget, after a check that the device supports the quantization."""
    quantization(plan.generator.quantization, plan.device, "generator")
    for vlm in plan.vlms:
        quantization(vlm.quantization, plan.device, "vlm")
    return replace(plan, budget=round(HEADROOM * free_bytes(plan.device)))


def _usable(taken: Sequence[str], plan: MemoryPlan) -> tuple[Strategy, ...]:
    """Return those of the strategies named ``taken`` that are available."""
    return tuple(one for one in named(taken) if one in plan.available)


def _fitted(
    plan: MemoryPlan, taken: Sequence[str], estimate: Callable[[Sequence[Strategy]], Estimate]
) -> MemoryPlan:
    """Return the plan with the strategies ``taken``, and with as many more as the free memory asks for."""
    plan = _checked(plan)
    start = _usable(taken, plan)
    if _bytes_on_disk((plan.generator, *plan.vlms)) < plan.budget / LARGE:
        return replace(plan, strategies=start)
    try:
        strategies, found = _add_strategies(start, plan.available, estimate, plan.budget)
    except UserError as error:
        return replace(plan, strategies=start, reason=f"memory: no strategy is added: {error}")
    fits = "fits" if found.total <= plan.budget else "does not fit"
    does = "; ".join(f"{one.name}: {one.does}" for one in strategies) or "without a strategy"
    reason = (
        f"memory: {readable(found.total)} {fits} the {readable(plan.budget)} that are free on "
        f"{plan.device} ({does})"
    )
    return replace(plan, strategies=strategies, estimate=found, reason=reason)


def _add_strategies(
    start: tuple[Strategy, ...],
    available: Sequence[Strategy],
    estimate: Callable[[Sequence[Strategy]], Estimate],
    budget: int,
) -> tuple[tuple[Strategy, ...], Estimate]:
    """Add strategies until the estimate is within the budget, but none that saves nothing."""
    taken, found = start, estimate(start)
    for one in available:
        if found.total <= budget:
            break
        if not _is_new(one, taken):
            continue
        tried = with_one_more(taken, one)
        try:
            better = estimate(tried)
        except UserError:
            continue  # it does not work for these models
        if better.total < found.total:
            taken, found = tried, better
    return taken, found


def _is_new(one: Strategy, taken: Sequence[Strategy]) -> bool:
    """Return whether ``one`` can be added: neither it nor a stronger one of its kind is used."""
    place = STRATEGIES.index
    return one not in taken and not any(one.excludes(other) and place(other) > place(one) for other in taken)


def _bytes_on_disk(specs: Sequence[GeneratorSpec | VlmSpec]) -> float:
    """Return the size of the weights of ``specs``; infinite if they are not all in local folders."""
    try:
        return sum(find_model(spec).bytes for spec in specs)
    except FileNotFoundError:
        return math.inf
