"""The coupling of noise and scene: which scene a picture's starting noise stands for.

The generator is trained on pairs of noise and scene in which the scene is a function of the noise, so that
the velocity is one too and a single step is plain regression. The means of the packed noise over its tokens
are 32 independent normal numbers; a transformer reads them with one uniform attention.
"""

import math

import torch
from torch import Tensor

from dualproc_cli.miniature.world.scene import UNIFORMS

LATENT_CHANNELS, LATENT_SIZE = 8, 16
TOKENS, TOKEN_CHANNELS = (LATENT_SIZE // 2) ** 2, 4 * LATENT_CHANNELS


def numbers_in(noise: Tensor) -> Tensor:
    """Return the normal numbers [B, TOKEN_CHANNELS] that packed noise [B, TOKENS, TOKEN_CHANNELS] carries."""
    return noise.mean(1) * math.sqrt(TOKENS)


def uniforms_in(noise: Tensor) -> Tensor:
    """Return the scene's uniform numbers [B, UNIFORMS] in (0, 1) that packed noise stands for."""
    return torch.special.ndtr(numbers_in(noise)[:, :UNIFORMS]).clamp(1e-4, 1 - 1e-4)


def noise_with(numbers: Tensor, noise: Tensor) -> Tensor:
    """Shift noise [B, TOKENS, TOKEN_CHANNELS] so that its first K numbers are those given, [B, K]."""
    wanted = torch.cat([numbers, numbers_in(noise)[:, numbers.shape[1] :]], 1)
    return noise + (wanted - numbers_in(noise))[:, None] / math.sqrt(TOKENS)
