"""The training pictures of the networks that read: renders, some of them through the miniature's own decoder."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

DECODED = 0.15  # share of the pictures that went through the autoencoder
LATENT_NOISE = 0.3  # at most, in units of the latents' spread


class Pictures:
    """Wears renders by encoding and decoding them, once the autoencoder is trained."""

    def __init__(self, folder: Path) -> None:
        trained = (folder / "vae" / "config.json").exists()
        self.autoencoder = AutoencoderTiny.from_pretrained(folder / "vae").eval() if trained else None

    @torch.no_grad()
    def worn_by_decoder(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Images [B, 3, H, W] in [0, 1], the first DECODED share of them encoded, disturbed and decoded."""
        if self.autoencoder is None:
            return images
        some = images[: round(DECODED * len(images))]
        latents = self.autoencoder.encode(some * 2 - 1).latents
        amount = LATENT_NOISE * torch.rand(len(some), 1, 1, 1, generator=rng)
        latents = latents + amount * torch.randn(latents.shape, generator=rng)
        decoded = (self.autoencoder.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        return torch.cat([decoded, images[len(some) :]])
