"""Learning objectives: from the scores of a question's candidate answers to its loss and P(answer).

To add one, write its two functions, name it in `OBJECTIVES`, and list that name in ``spec/learn.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Takes the candidates' log-likelihoods [B, A] about B pictures, the expected answer first, and the number of
# tokens of each candidate [A]; returns a value for each picture [B].
PerPicture = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """What is minimised for a question, and what is reported about it.

    Attributes:
        loss: L_q for each picture, differentiable.
        log_probability: log P(answer) for each picture, which reports show and ``learn.stop_at`` waits for.
    """

    loss: PerPicture
    log_probability: PerPicture


def mean_token_loss(log_likelihood: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean over the answer's tokens of -log p(token | picture, question, earlier tokens): [B].

    This is the loss of "Dual-Process Image Generation" (arXiv 2506.01955).
    """
    return -(log_likelihood[:, 0] / tokens[0])


def log_share(log_likelihood: Tensor, tokens: Tensor) -> Tensor:
    """Return log P(answer) [B], the log of the answer's share of its candidates' probabilities.

    A candidate's probability is the product over its tokens, so of two that fit the picture equally well per
    token the longer one has the smaller share. An answer without alternatives has no share: its own
    log-likelihood is returned.
    """
    return (log_likelihood if log_likelihood.shape[1] == 1 else log_likelihood.log_softmax(1))[:, 0]


def log_share_per_token(log_likelihood: Tensor, tokens: Tensor) -> Tensor:
    """Return log P(answer) [B] as `log_share` does, but from the mean probability of each candidate's tokens.

    The mean is geometric. A candidate's length then gives it no advantage or disadvantage.
    """
    return log_share(log_likelihood / tokens, tokens)


def _negative(log_probability: PerPicture) -> PerPicture:
    return lambda log_likelihood, tokens: -log_probability(log_likelihood, tokens)


OBJECTIVES: dict[str, Objective] = {
    "likelihood": Objective(loss=mean_token_loss, log_probability=log_share),
    "choice": Objective(loss=_negative(log_share), log_probability=log_share),
    "choice-per-token": Objective(loss=_negative(log_share_per_token), log_probability=log_share_per_token),
}
