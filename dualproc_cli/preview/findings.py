"""What a preview warns of: rules with their thresholds, and what to do about each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from dualproc_cli.preview.asking import NOTHING, SMALL, Asked

TRUE = 0.9  # P(answer) above it leaves a tenth of a nat to learn
NEVER = 0.05  # P(answer) below it: the VLM is sure of another answer
NEARLY_ALL = 0.9  # share of the pictures: one in ten may be an exception
# Nats by which the loss falls if all pixels change by 1 % against its gradient. With less, not even a change
# over the whole range of every pixel would raise the probability of the answer by a factor of e.
NO_GRADIENT = 0.01
LIKELY = 0.5  # P(answer) above which it is the answer that the VLM gives
# Nats of log-odds that count as the same answer: what hides another part of a picture changes them as much.
SAME = 0.5
UNSURE = 1.0  # nats of log-odds from chance: of two answers, P(answer) is between .27 and .73
BOTH = 0.25  # share of pictures where the VLM may affirm a question and its opposite: the undecided ones
APART = 0.25  # by which P(answer) may differ between wordings of one question, a mean over pictures
NAMED = 0.5  # probability of all the answers that a spec names, below which the VLM says something else


@dataclass(frozen=True)
class Finding:
    """Something that a preview found.

    Attributes:
        kind: the name of the rule.
        subject: the name of the question, or of the visual prompt.
        text: what was found, with its numbers, and what to do.
        level: ``warning``, or ``note`` for what need not be a fault.
    """

    kind: str
    subject: str
    text: str
    level: Literal["warning", "note"] = "warning"

    def __str__(self) -> str:
        return f"{self.level}: {self.subject}: {self.text}"


def saturated(asked: Asked) -> bool:
    """Return whether the answer is the expected one in nearly all pictures as they are."""
    return _share(asked.pictures.probability[0] >= TRUE) >= NEARLY_ALL


def question_findings(asked: Sequence[Asked]) -> list[Finding]:
    """Return what is wrong with the questions, as far as it was asked."""
    learned = [one for one in asked if one.question.weight > 0]
    nothing_to_learn = all(map(saturated, learned))
    found = [_already_true(one, nothing_to_learn) for one in learned]
    found += [_never(one) for one in learned]
    found += [rule(one) for one in asked for rule in RULES]
    order = [one.question.name for one in asked]
    return sorted((one for one in found if one), key=lambda one: order.index(one.subject))


def _already_true(asked: Asked, nothing_to_learn: bool) -> Finding | None:
    if not saturated(asked):
        return None
    probability = asked.pictures.probability[0]
    where = f"P(answer) is above {TRUE} in {(probability >= TRUE).sum()} of {len(probability)} base pictures"
    if nothing_to_learn:
        text = f"already true: {where}, so there is nothing to learn; ask for what is not drawn anyway"
        return _finding("already-true", asked, text)
    return _finding("already-true", asked, f"already true: {where}; it only keeps them so", "note")


def _never(asked: Asked) -> Finding | None:
    highest = asked.pictures.probability[0].max().item()
    if asked.gradient is None or highest > NEVER or asked.gradient >= NO_GRADIENT:
        return None
    text = (
        f"never true, and no gradient to speak of: P(answer) is {highest:.3f} at most, and changing every "
        f"pixel by {SMALL:.0%} lowers the loss by {asked.gradient:.2g} nats at most; ask for something "
        "nearer to what is drawn, or hide less of the picture"
    )
    return _finding("never-true", asked, text)


def _biased(asked: Asked) -> Finding | None:
    """Tell whether there need not be anything to see for the answer."""
    probability = asked.nothing.probability[0]
    said = [f"{name} ({value:.2f})" for name, value in zip(NOTHING, probability.tolist(), strict=True)]
    if (probability >= LIKELY).any():
        fooled = " and ".join(text for text, value in zip(said, probability, strict=True) if value >= LIKELY)
        text = (
            f"the VLM gives the answer to pictures that show nothing: {fooled}; drawing nothing is a way to "
            "learn it, so ask about something that has to be seen"
        )
        return _finding("bias", asked, text)
    usual, low_high = asked.pictures.log_odds[0], asked.pictures.probability[0].aminmax()
    apart = (asked.nothing.log_odds[0] - usual[:, None]).abs().max()
    if asked.pictures.probability[0].mean() <= NEVER or apart >= SAME:
        return None
    text = (
        f"the VLM says the same to all pictures ({low_high.min:.2f} to {low_high.max:.2f}), and to those "
        f"that show nothing: {' and '.join(said)}; ask in other words, or another VLM"
    )
    return _finding("bias", asked, text)


def _opposite(asked: Asked) -> Finding | None:
    own, wordings = asked.own, asked.question.trained_wordings
    probability = asked.pictures.probability
    shares = [_share(torch.minimum(probability[0], opposite) >= LIKELY) for opposite in probability[own:]]
    if not shares or max(shares) < BOTH:
        return None
    wording = wordings[own + shares.index(max(shares))]
    text = (
        f"the VLM also gives the answer {asked.question.answer!r} to the opposite, {wording!r}, in "
        f"{max(shares):.0%} of the pictures; ask in other words, or add a question for the opposite"
    )
    return _finding("opposite", asked, text)


def _overlay(asked: Asked) -> Finding | None:
    change = overlay_change(asked)
    if change is None or change >= SAME:
        return None
    text = (
        f"the VLM does not look at {asked.question.visual_prompt}: the answer's log-odds change by "
        f"{change:.2f} nats over these: {', '.join(asked.altered)}; name it in the question, or leave "
        "it out"
    )
    return _finding("overlay", asked, text)


def overlay_change(asked: Asked) -> float | None:
    """Return over how many nats a picture's log-odds range when the visual prompt is altered: the mean."""
    if not asked.altered:
        return None
    altered = torch.stack([answers.log_odds[0] for answers in asked.altered.values()])
    usual = asked.pictures.log_odds[0, : altered.shape[1]]
    low, high = torch.cat([usual[None], altered]).aminmax(dim=0)
    return (high - low).mean().item()


def _wordings(asked: Asked) -> Finding | None:
    probability = asked.pictures.probability[: asked.own]
    apart = (probability - probability[0]).abs().mean(1)
    if apart.max() < APART:
        return None
    other = int(apart.argmax())
    text = (
        f"its wordings disagree: P(answer) is {probability[0].mean():.2f} for {asked.question.question!r} "
        f"and {probability[other].mean():.2f} for {asked.question.paraphrases[other - 1]!r}, which differ by "
        f"{apart.max():.2f} a picture; leave one of them out"
    )
    return _finding("wordings", asked, text)


def _undecided(asked: Asked) -> Finding | None:
    """Tell whether the answer is as likely as its alternatives, or unlikely together with them."""
    count = len(asked.question.alternatives)
    if not count:
        return None
    named = asked.pictures.named[0].mean().item()
    if named < NAMED:
        text = (
            f"the VLM would say something else: the answers that are named have a probability of {named:.2g} "
            f"together; say what to answer with, such as question_suffix: Answer with "
            f"{asked.question.answer} or {asked.question.alternatives[0]}."
        )
        return _finding("other-answers", asked, text)
    chance = -torch.tensor(float(count)).log()
    if _share((asked.pictures.log_odds[0] - chance).abs() < UNSURE) < NEARLY_ALL:
        return None
    low, high = asked.pictures.probability[0].aminmax()
    text = (
        f"the VLM does not tell the answer from its alternatives: P(answer) is {low:.2f} to {high:.2f}; "
        "ask in other words, or another VLM"
    )
    return _finding("undecided", asked, text)


def _several_tokens(asked: Asked) -> Finding | None:
    count = int(asked.pictures.tokens[0])
    if count == 1:
        return None
    text = (
        f"the answer {asked.question.answer!r} has {count} tokens: P(answer) is a product over them, and "
        "smaller than that of a shorter answer"
    )
    return _finding("several-tokens", asked, text, "note")


RULES: tuple[Callable[[Asked], Finding | None], ...] = (
    _biased,
    _opposite,
    _overlay,
    _wordings,
    _undecided,
    _several_tokens,
)


def _finding(kind: str, asked: Asked, text: str, level: Literal["warning", "note"] = "warning") -> Finding:
    return Finding(kind, asked.question.name, text, level)


def _share(flags: torch.Tensor) -> float:
    return flags.double().mean().item()
