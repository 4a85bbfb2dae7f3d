"""The training of the autoencoder: 64x64 pictures to 16x16 latents of 8 channels and back."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from dualproc_cli.miniature.training.blends import RANDOM_COLORS
from dualproc_cli.miniature.training.loop import Task, Training, seeded
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import sample_scenes, with_random_colors

# Standard deviation of the noise added before decoding, in units of the latents': the decoder learns to
# tolerate small errors.
LATENT_NOISE = 0.1
# Standard deviation of the latents that the generator sees. It predicts noise - latent in one step; at 3, an
# error in carrying the noise through the network is three times smaller in the picture than at 1.
LATENT_SPREAD = 3.0


def build() -> AutoencoderTiny:
    """Build the autoencoder with random weights."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(1, 1, 3),
        num_decoder_blocks=(4, 3, 1),
        latent_channels=8,
        act_fn="silu",
    )


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of training the autoencoder on renders.

    Where ``folder`` has one, its decoder alone goes on: the latents stay what a generator has learned.
    """
    exported = folder / "vae"
    warm = exported.exists()
    model: Any = AutoencoderTiny.from_pretrained(exported) if warm else build()
    model.encoder.requires_grad_(not warm)
    model.to(memory_format=torch.channels_last)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        scene = with_random_colors(sample_scenes(batch_size, rng), RANDOM_COLORS, rng)
        images = render(scene).images * 2 - 1
        images = images.contiguous(memory_format=torch.channels_last)
        latents = model.encode(images).latents
        noise = torch.randn(latents.shape, generator=rng)
        error = model.decode(latents + LATENT_NOISE * noise).sample - images
        spread, mean = torch.std_mean(latents)
        return {
            "reconstruction": error.abs().mean() + 2 * error.square().mean(),
            "edges": _gradient(error),
            "latents": 0.01 * ((spread - 1).square() + mean.square()) + 1e-3 * latents.square().mean(),
        }

    return Task("autoencoder", model, loss, samples, batch_size=8, learning_rate=1.5e-3, warm_start=warm)


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the averaged model with the latents' mean and spread in its config; return held-out figures."""
    training.use_average()
    model: Any = training.task.modules
    rng = seeded(1_000_003)
    images = render(sample_scenes(512, rng)).images * 2 - 1
    with torch.no_grad():
        latents = torch.cat([model.encode(part).latents for part in images.split(64)])
        decoded = torch.cat([model.decode(part).sample for part in latents.split(64)])
    spread, mean = torch.std_mean(latents)
    if not training.task.warm_start:
        model.register_to_config(scaling_factor=LATENT_SPREAD / float(spread), shift_factor=float(mean))
    model.save_pretrained(folder / "vae", variant=None)
    error = (decoded.clamp(-1, 1) - images).square().mean() / 4
    return {"psnr_db": float(-10 * error.log10()), "latent_spread": float(spread)}


def _gradient(error: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels' errors."""
    horizontal = (error[..., 1:] - error[..., :-1]).abs().mean()
    vertical = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return horizontal + vertical
