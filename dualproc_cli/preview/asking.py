"""What the VLM answers to every wording of a view's questions, and how the loss depends on the pixels."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dualproc_cli.compiler import View
from dualproc_cli.objectives import Objective
from dualproc_cli.pictures import BLANK_GRAY
from dualproc_cli.spec import Question

BATCH = 4  # pictures asked about at once
SMALL = 0.01  # a change of a pixel's value, of a range of 1
CERTAIN = 1e-9  # 1 - P(answer) is not taken to be smaller
NOTHING = ("blank", "noise")  # pictures that show nothing


@dataclass(frozen=True)
class Answers:
    """The answers to W wordings about N pictures.

    Attributes:
        log_probability: [W, N] log P(answer), as ``learn.objective`` defines it.
        named: [W, N] the probability that the VLM gives to all the answers that the spec names.
        tokens: [W] the number of tokens of each expected answer.
    """

    log_probability: Tensor
    named: Tensor
    tokens: Tensor

    @property
    def probability(self) -> Tensor:
        """P(answer) [W, N]."""
        return self.log_probability.exp()

    @property
    def log_odds(self) -> Tensor:
        """The logarithm of P(answer) / (1 - P(answer)), [W, N] in nats."""
        return self.log_probability - (1 - self.probability).clamp(min=CERTAIN).log()

    def of(self, wordings: slice) -> "Answers":
        """Return the answers to some of the wordings."""
        return Answers(self.log_probability[wordings], self.named[wordings], self.tokens[wordings])


@dataclass(frozen=True)
class Asked:
    """All that was asked about one question.

    Attributes:
        question: as the VLM was asked it; its last paraphrases may ask for the opposite.
        view: the visual prompt and the size at which it was shown.
        own: how many of the wordings ask the question itself; those after them ask for its opposite.
        pictures: the answers about the pictures.
        nothing: those about what `nothing` returns.
        altered: those about the first pictures with another visual prompt, by what was done to it.
        gradient: how much its loss falls by a small change of a picture, see `gradient_sizes`; None if it was
            not computed.
    """

    question: Question
    view: View
    own: int
    pictures: Answers
    nothing: Answers
    altered: dict[str, Answers] = field(default_factory=dict)
    gradient: float | None = None


@torch.no_grad()
def ask(view: View, images: Tensor, objective: Objective) -> Answers:
    """Ask every wording of the view's questions about images [N, 3, H, W] in [0, 1], overlay included."""
    log_probability, named = [], []
    for part in images.split(BATCH):
        scores = view.scorer(view.show(view.overlaid(part)), view.beside)
        likelihoods = [likelihood.double() for likelihood in scores.log_likelihood]
        pairs = zip(likelihoods, scores.tokens, strict=True)
        log_probability.append(torch.stack([objective.log_probability(*pair) for pair in pairs]))
        named.append(torch.stack([likelihood.exp().sum(1) for likelihood in likelihoods]))
    tokens = torch.stack([counts[0] for counts in scores.tokens])
    return Answers(torch.cat(log_probability, 1).cpu(), torch.cat(named, 1).cpu(), tokens.cpu())


def gradient_sizes(view: View, images: Tensor, objective: Objective) -> list[float]:
    """Return how much the loss of each of the view's questions falls, at most, by a small change.

    That is the fall to first order, in nats, if the value of every pixel changes by `SMALL` against the
    gradient: 0.01 |dL/dx|_1, the mean over images [N, 3, H, W], which go through the VLM one by one.
    """
    sizes = torch.zeros(len(view.questions))
    for image in images.split(1):
        pixels = image.detach().requires_grad_()
        with torch.enable_grad():
            scores = view.scorer(view.show(view.overlaid(pixels)), view.beside, view.wordings(None))
            losses = [
                objective.loss(likelihood, tokens).sum()
                for likelihood, tokens in zip(scores.log_likelihood, scores.tokens, strict=True)
            ]
        for index, loss in enumerate(losses):
            (gradient,) = torch.autograd.grad(loss, pixels, retain_graph=loss is not losses[-1])
            sizes[index] += SMALL * gradient.abs().sum().item()
    return (sizes / len(images)).tolist()


def nothing(images: Tensor) -> Tensor:
    """Return pictures that show nothing, of the size of images [N, 3, H, W]: one gray, one of noise."""
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    return torch.stack([torch.full_like(noise, BLANK_GRAY), noise])
