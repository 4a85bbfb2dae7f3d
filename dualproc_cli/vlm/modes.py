"""How a VLM's answers are computed: modes are tried on noise, and the fastest correct one is used."""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualproc_cli.device import free_bytes
from dualproc_cli.errors import UserError
from dualproc_cli.vlm.chat import Prompts, picture_inputs
from dualproc_cli.vlm.load import Vlm
from dualproc_cli.vlm.prefix import Query, generated, lookahead, plain, shared_prefix, shared_vision

logger = logging.getLogger(__name__)

Forward = Callable[[Query], Tensor]

# Largest difference, in nats, of an answer token's log-probability from its definition, in float32.
TOLERANCE = 1e-3
# In 16 bits, two ways to compute the same differ by about as much as each does from float32. So a mode may be
# off by this many times what the plain forward itself is off, and by `LEAST`: few answers are compared.
ROUNDINGS = 4
LEAST = 0.01
# Where there is no memory for the model in float32. Logits are then rounded to multiples of up to 1/8, so it
# finds gross mistakes only; `lookahead` finds prefix-LMs.
UNKNOWN = 0.5
ADVICE = "choose another model, or report this with the versions of transformers and torch"
LOOKAHEAD = 0.02  # prefix-LMs are around 0.2, rounding is below 0.005


@dataclass(frozen=True)
class ForwardMode:
    """How answers are computed.

    Attributes:
        name: ``cache``, ``vision`` or ``separate``; see `AnswerScorer`.
        forward: computes the log-probabilities of answer tokens.
        batched: whether all pictures go through in one pass, or one by one.
        reason: why the faster modes cannot be used; empty for the fastest.
    """

    name: str
    forward: Forward
    batched: bool
    reason: str = ""

    def __str__(self) -> str:
        return self.name if self.batched else f"{self.name}, picture by picture"


# The modes of causal models, the fastest first, for estimates on tensors without data, which cannot try them.
CAUSAL_MODES = (
    ForwardMode("cache", shared_prefix, True),
    ForwardMode("vision", shared_vision, True),
    ForwardMode("separate", plain, True),
)


@dataclass(frozen=True)
class PictureForward:
    """Runs a frozen VLM over pictures of one size.

    Attributes:
        vlm: the model and its processor.
        prompts: the questions and their candidate answers as tokens.
        beside: a second picture [3, h, w] in [0, 1] that is shown after each picture, or None.
    """

    vlm: Vlm
    prompts: Prompts
    beside: Tensor | None

    def __call__(self, mode: ForwardMode, images: Tensor, asked: Sequence[int] | None = None) -> Tensor:
        """Return the log-probabilities of answer tokens [B, T], on the device of ``images``.

        Args:
            mode: how they are computed.
            images: [B, 3, H, W] in [0, 1].
            asked: indices of the questions to ask; all by default.
        """
        device, dtype = self.vlm.device, self.vlm.dtype
        asked = range(len(self.prompts.tokens)) if asked is None else asked
        group = [] if self.beside is None else [self.beside.to(device, torch.float32)]
        found = []
        for part in [images] if mode.batched else images.split(1):
            pictures = [[image, *group] for image in part.to(device, torch.float32)]
            inputs = picture_inputs(self.vlm.processor, pictures, self.prompts.pixel_keys)
            inputs = {k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
            found.append(mode.forward(Query(self.vlm.model, self.prompts, asked, inputs, len(part))))
        return torch.cat(found).to(images.device)


def choose_mode(run: PictureForward, height: int, width: int) -> ForwardMode:
    """Return the fastest mode that agrees with plain forward passes on two noise pictures and has a gradient.

    Args:
        run: the VLM and the questions.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Raises:
        UserError: no mode works, for instance because the processor does not keep the graph.
    """
    noise = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(run.vlm.device)
    causal = _is_causal(run, noise)
    definition = ForwardMode("separate", plain if causal else generated, False)
    expected = _expected(run, definition, noise)
    tolerance = _tolerance(run, definition, noise, expected)
    faults: list[str] = []
    if not run.prompts.holds_pictures:
        faults.append("cache: the picture comes after the question")
    elif not causal:
        faults.append("cache: the model reads the picture with the question in mind (prefix-LM)")
    for mode in _candidates(definition.forward, may_share_prefix=not faults):
        fault = _fault(run, mode, noise, expected, tolerance)
        if fault is None:
            if faults:
                logger.warning("answers are computed in mode %s, because %s", mode, "; ".join(faults))
            return replace(mode, reason="; ".join(faults))
        faults.append(f"{mode}: {fault}")
    raise UserError(f"vlm.model: cannot learn from {_kind(run)}'s answers: {'; '.join(faults)}; {ADVICE}")


def _candidates(definition: Forward, may_share_prefix: bool) -> Iterator[ForwardMode]:
    """Yield the modes to try, the fastest first."""
    forwards = {"vision": shared_vision, "separate": definition}
    if may_share_prefix:
        forwards = {"cache": shared_prefix, **forwards}
    for name, forward in forwards.items():
        for batched in (True, False):
            yield ForwardMode(name, forward, batched)


def _is_causal(run: PictureForward, noise: Tensor) -> bool:
    """Return whether the model's view of the picture does not depend on the text after it."""
    try:
        with torch.no_grad():
            changed = run(ForwardMode("lookahead", lookahead, True), noise[:1])
            return changed.max().item() < LOOKAHEAD
    except Exception as error:  # a family may fail in any way inside its own forward
        raise _cannot_be_asked(run, error) from error


def _expected(run: PictureForward, definition: ForwardMode, noise: Tensor) -> Tensor:
    """Return the answers about the noise [2, T] by definition; check that a second picture changes them."""
    try:
        with torch.no_grad():
            expected = run(definition, noise)
            if run.beside is None:
                return expected
            other = torch.rand(run.beside.shape, generator=torch.Generator().manual_seed(1))
            found = replace(run, beside=other)(definition, noise[:1])
    except Exception as error:  # as above
        raise _cannot_be_asked(run, error) from error
    if torch.equal(found, expected[:1]):
        raise UserError(
            f"vlm.model: {_kind(run)} cannot see a second picture; choose another model, or lay the "
            "visual prompt over the picture instead of beside it"
        )
    return expected


def _tolerance(run: PictureForward, definition: ForwardMode, noise: Tensor, expected: Tensor) -> float:
    """Return how much a mode's answers may differ from ``expected``, in nats."""
    vlm = run.vlm
    if vlm.dtype == torch.float32 or vlm.model is None:
        return TOLERANCE
    size = 4 * sum(parameter.numel() for parameter in vlm.model.parameters())
    if getattr(vlm.model, "hf_quantizer", None) is not None or 2 * size > free_bytes(vlm.device):
        return UNKNOWN
    try:
        exact = replace(run, vlm=replace(vlm, model=copy.deepcopy(vlm.model).float()))
        with torch.no_grad():
            rounding = (exact(definition, noise) - expected).abs().max().item()
    except Exception as error:  # a family may be tied to its precision in any way
        logger.debug("no answers in float32: %s", _line(error))
        return UNKNOWN
    return max(ROUNDINGS * rounding, LEAST) if math.isfinite(rounding) else UNKNOWN


def _fault(
    run: PictureForward, mode: ForwardMode, noise: Tensor, expected: Tensor, tolerance: float
) -> str | None:
    """Return what is wrong with a mode, or None."""
    images = noise.clone().requires_grad_()
    try:
        with torch.enable_grad():
            found = run(mode, images)
            (gradient,) = torch.autograd.grad(found.sum(), images)
    except Exception as error:  # as above
        return _line(error)
    difference = (found.detach() - expected).abs().max().item()
    if not difference <= tolerance:
        return f"differs from a plain forward by {difference:.2g}"
    if not gradient.isfinite().all() or not gradient.any():
        return "has no finite gradient for the picture"
    return None


def _cannot_be_asked(run: PictureForward, error: Exception) -> UserError:
    return UserError(f"vlm.model: {_kind(run)} cannot be asked about a picture ({_line(error)}); {ADVICE}")


def _kind(run: PictureForward) -> str:
    return type(run.vlm.model).__name__


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]
