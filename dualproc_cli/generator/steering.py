"""Steering: changing what a frozen generator is given, so that it still draws what it can draw.

The inputs of a pipeline can be steered, and the colours of its pictures, alone or together:

- the noise: z' = z + sigma f(z / sigma, c), where f is a small network on the coarse parts of the noise;
- the prompt: other words in its place (`Steering.words`);
- the conditioning: c' = c + s d, where d is a learned offset for all tokens of what a text encoder returns
  plus one for each, in units of s, the root mean square of what it returns for a first prompt;
- the colours: y = x exp(g(x)), a smooth function of colour for each picture (`color_steering`).

The Kullback-Leibler divergence of the two noises is |f|^2 / 2 nats (Eyring et al. 2025, "Noise
Hypernetworks"), of which a picture gets `BUDGET` at most: beyond, f is shortened, because noise that no prior
would draw gives pictures that no generator was trained for. It costs as many nats as it was before, and so is
pulled back: steering that went astray beyond the budget, where only its direction counts, did not return.
Offsets have no such unit; they cost their mean square, about 1 between the embeddings of two prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.generator.color_steering import ColorSteering, zero
from dualproc_cli.generator.differentiate import Start
from dualproc_cli.generator.noise_layout import NoiseLayout

# Sides of the grids on which the noise is steered, and the size of a network's output on each: the coarser a
# part of the noise, the more it decides about the layout. Finer parts are many, and learn by smaller steps.
GRIDS = {1: 1.0, 2: 0.1}
HIDDEN = 256  # width of a network
BUDGET = 12.0  # nats
OFFSET = 20.0  # how much faster than a network's weights an offset is learned, by the same learning rate
PROMPT = 0.2  # root mean square of the numbers about a prompt: below that of the noise, which comes first

# What text encoders returned for some prompts, [B, D] or [B, L, D], call by call, by `key`.
Embeddings = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Inputs:
    """What one call of a pipeline started from, as a probe found it.

    Attributes:
        latents: shape of one picture's noise, without the batch.
        sigma: standard deviation of the noise.
        aspect: height over width of the picture, which tells how tokens are laid out.
        embeddings: what each text encoder returned for a prompt, by `key`: the number of tokens (0 for all
            together), that of channels, and the root mean square of the values.
    """

    latents: tuple[int, ...] | None
    sigma: float
    aspect: float
    embeddings: Mapping[str, tuple[int, int, float]]


class NoiseSteering(nn.Module):
    """f of the noise: reads the coarse parts of the noise and the prompt, and shifts the coarse parts.

    It starts as zero. For each of `GRIDS`, a perceptron reads the means of the noise over the grid's cells,
    scaled to unit variance, beside the prompts' mean embeddings.
    """

    def __init__(self, inputs: Inputs, prompt: int) -> None:
        """Make the network for noise as ``inputs`` found it, and for ``prompt`` numbers about a prompt."""
        super().__init__()
        assert inputs.latents is not None  # the caller checked it
        self.sigma, self.layout = inputs.sigma, NoiseLayout.of(inputs.latents, inputs.aspect)
        count = self.layout.cells(torch.empty(1, *inputs.latents)).shape[1]
        self.networks = nn.ModuleList(_perceptron(count * side * side, prompt) for side in GRIDS)

    def forward(self, noise: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the steered noise and the nats it costs.

        Args:
            noise: [B, C, H, W], [B, C, frames, H, W], [B, frames, H, W, C] or tokens [B, N, C].
            prompt: [B, P] numbers about the prompts.

        Returns:
            z', as ``noise``, and |f|^2 / 2, [B], of f as it was before it was shortened.
        """
        cells = self.layout.cells(noise.float() / self.sigma)
        shift = torch.zeros_like(cells)
        for (side, share), network in zip(GRIDS.items(), self.networks, strict=True):
            part = _coarse(cells, side)
            found = network(torch.cat([part.flatten(1), PROMPT * prompt], 1))
            shift = shift + share * _fine(found.view_as(part), cells)
        nats = shift.square().sum((1, 2, 3)) / 2
        affordable = (BUDGET / nats.clamp(min=BUDGET))[:, None, None, None]
        shift = affordable.sqrt() * shift
        return noise + (self.sigma * self.layout.noise(shift, noise.shape)).to(noise.dtype), nats


class Steering(nn.Module):
    """What is learned of the steering of one generator; it starts with no effect.

    Attributes:
        inputs: what it was made for.
        where: what it steers.
        noise: steers the noise, or None.
        offsets: [1 + L, D] offsets of the conditioning, by `key`: that of all tokens, and those of each;
            times `OFFSET`, they are in units of its root mean square. With those of each alone, the tokens of
            the subjects turn into something else before that of the place does; with that of all alone, they
            cannot stay what they were.
        colors: recolours the pictures, or None.
        words: what some prompts are replaced by.
    """

    def __init__(self, inputs: Inputs, where: tuple[str, ...], seed: int) -> None:
        """Prepare to steer what ``where`` names: ``noise``, ``conditioning`` and ``colors``."""
        super().__init__()
        self.inputs, self.where = inputs, where
        self.words: dict[str, str] = {}
        self.scales = {key: scale for key, (_, _, scale) in inputs.embeddings.items()}
        self.prompt_keys = {key: size for key, (_, size, _) in inputs.embeddings.items()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            prompt = sum(self.prompt_keys.values())
            self.noise = NoiseSteering(inputs, prompt) if "noise" in where else None
            self.colors = ColorSteering(prompt) if "colors" in where else None
        steered = inputs.embeddings if "conditioning" in where else {}
        self.offsets = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros(1 + tokens, size)) for key, (tokens, size, _) in steered.items()}
        )

    def reworded(self, prompts: Sequence[str]) -> list[str]:
        """Return what the generator is given in place of ``prompts``."""
        return [self.words.get(prompt, prompt) for prompt in prompts]

    @property
    def start(self) -> Start:
        """From where on a call is recorded so that gradients reach what is steered."""
        if self.noise is not None:
            return "noise"
        return "conditioning" if len(self.offsets) else "steps"

    def offset(self, key: str, embedding: Tensor) -> Tensor:
        """Return ``embedding``, [B, D] or [B, L, D], with the offsets of its key added.

        Tokens beyond those that a first prompt had get that of all.
        """
        if key not in self.offsets:
            return embedding
        added = _by_token(self.offsets[key])
        if embedding.ndim == 3:
            beyond = OFFSET * self.offsets[key][:1].expand(max(embedding.shape[1] - len(added), 0), -1)
            added = torch.cat([added[: embedding.shape[1]], beyond])
        return embedding + (self.scales[key] * added).to(embedding)

    @torch.no_grad()
    def begin_between(self, plain: Embeddings, worded: Embeddings) -> None:
        """Set the offsets to the mean difference of ``worded``, the same prompts with more words.

        Where the numbers of tokens differ, they cannot be compared: all get the difference of the means.
        """
        for key, offset in self.offsets.items():
            before, after = plain[key], worded[key]
            by_token = before[0].ndim == 3 and len({part.shape[1:] for part in (*before, *after)}) == 1
            if not by_token:
                before, after = ([_over_tokens(part) for part in parts] for parts in (before, after))
            change = (torch.cat([*after]) - torch.cat([*before])).float().mean(0)
            change = change / (OFFSET * self.scales[key])
            if by_token:
                change = change[: len(offset) - 1]
                offset[1 : 1 + len(change)] = change
            else:
                offset[0] = change

    def conditioning_cost(self) -> Tensor:
        """Return the offsets' mean square, in units of the embeddings' own."""
        offsets = [_by_token(offset).flatten() for offset in self.offsets.values()]
        return torch.cat(offsets).square().mean() if offsets else torch.zeros(())

    def about_prompts(self, seen: Mapping[str, Tensor], count: int) -> Tensor:
        """Return numbers [count, P] about the prompts: mean embeddings, scaled to unit root mean square.

        Args:
            seen: embeddings [count, D] by `key`; those that were not seen count as zero.
            count: the number of prompts.
        """
        device = next(self.parameters()).device
        parts = [
            F.rms_norm(seen[key].float().to(device), (size,))
            if key in seen and len(seen[key]) == count
            else torch.zeros(count, size, device=device)
            for key, size in self.prompt_keys.items()
        ]
        return torch.cat(parts, 1) if parts else torch.zeros(count, 0, device=device)


def key(encoder: str, embedding: Tensor) -> str:
    """Return the name of an offset: the text encoder, and the number of axes and channels it returned.

    The layers of a text encoder, which are of one size, share an offset.
    """
    return f"{encoder}-{embedding.ndim}-{embedding.shape[-1]}"


def _by_token(offset: Tensor) -> Tensor:
    """Return what each token gets, [L, D], or all together, [1, D], in units of the root mean square."""
    every, own = offset[:1], offset[1:]
    return OFFSET * (every + own if len(own) else every)


def _over_tokens(embedding: Tensor) -> Tensor:
    """Return the means [B, D] over the tokens of [B, L, D]; [B, D] as it is."""
    return embedding.mean(1) if embedding.ndim == 3 else embedding


def _perceptron(numbers: int, prompt: int) -> nn.Sequential:
    """Return a network from ``numbers`` and what is known of the prompt to as many numbers, zero at first."""
    return nn.Sequential(
        nn.Linear(numbers + prompt, HIDDEN),
        nn.SiLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.SiLU(),
        zero(nn.Linear(HIDDEN, numbers)),
    )


def _coarse(cells: Tensor, side: int) -> Tensor:
    """Return the means over a grid of ``side`` x ``side``, scaled so that unit noise has unit variance."""
    height, width = cells.shape[-2:]
    return F.adaptive_avg_pool2d(cells, side) * (height * width / side**2) ** 0.5


def _fine(coarse: Tensor, cells: Tensor) -> Tensor:
    """Return values on a grid spread over ``cells``; a unit on the grid is a unit in norm."""
    (height, width), side = cells.shape[-2:], coarse.shape[-1]
    return F.interpolate(coarse, size=(height, width), mode="nearest") / (height * width / side**2) ** 0.5
