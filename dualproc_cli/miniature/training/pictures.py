"""The pictures that reader and VLM are trained on: renders, decoded renders, and the generator's own."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch import Tensor

from dualproc_cli.miniature.training.augment import augment
from dualproc_cli.miniature.training.blends import RANDOM_COLORS
from dualproc_cli.miniature.training.generator_model import generate
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.coupling import TOKEN_CHANNELS, TOKENS, uniforms_in
from dualproc_cli.miniature.world.fit import fit, render_error
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import (
    Scene,
    sample_prompts,
    sample_scenes,
    scene_from_uniforms,
    with_random_colors,
)

DECODED = 0.15  # share of the pictures that are decoded renders
LATENT_NOISE = 0.3  # largest standard deviation of the noise added to latents, in units of the latents'
REFITTED = 12  # steps by which a scene is fitted to what the generator drew of it
RENDERED = 0.4  # largest share of the render that is mixed into a generated picture


class TrainingPictures:
    """Samples pictures and the scenes that they show; none are decoded before an autoencoder is trained."""

    def __init__(self, folder: Path, generated: float) -> None:
        """Load the networks of ``folder``; the generator draws a share ``generated`` of the pictures."""
        self.generated = generated
        self.autoencoder: Any = None
        device = torch.get_default_device()
        if (folder / "vae" / "config.json").exists():
            self.autoencoder = AutoencoderTiny.from_pretrained(folder / "vae").eval().to(device)
        if generated:
            generator = FluxPipeline.from_pretrained(folder / "generator", dtype=torch.float32)
            self.generator: Any = generator.to(device)
            self.generator.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def sample(
        self, count: int, rng: torch.Generator, pairs: float = 0.25
    ) -> tuple[Tensor, Scene, Rendering, Tensor]:
        """Sample augmented pictures.

        A share ``pairs`` of the scenes has two subjects. Of those that the generator does not draw, a share
        RANDOM_COLORS has any colours.

        Returns:
            The pictures [count, 3, H, W] in [0, 1], their scenes, the scenes' renderings, and the root mean
            square [count] of what spoils each: what a scene near its own cannot explain of what the generator
            drew, and the augmentation.
        """
        few = round(self.generated * count)
        noise = torch.randn(few, TOKENS, TOKEN_CHANNELS, generator=rng)
        kind, look = sample_prompts(few, rng, pairs)
        rest = with_random_colors(sample_scenes(count - few, rng, pairs), RANDOM_COLORS, rng)
        scene = Scene.concatenate([scene_from_uniforms(uniforms_in(noise), kind, look), rest])
        rendering = render(scene)
        images, own = rendering.images.clone(), torch.zeros(count)
        if few:
            images[:few] = self._generate(noise, captions(kind, look, rng), images[:few], rng)
            own[:few] = render_error(fit(scene[:few], images[:few], REFITTED), images[:few]).sqrt()
        decoded = slice(few, few + round(DECODED * count))
        images[decoded] = self._decode(images[decoded], rng)
        images, artefacts = augment(images, rng)
        return images, scene, rendering, torch.hypot(own, artefacts)

    def _generate(self, noise: Tensor, prompts: list[str], renders: Tensor, rng: torch.Generator) -> Tensor:
        """Generate pictures in one step, and mix some of the renders into them.

        Generated pictures lack details of the scenes that they are labelled with. The renders add some.
        """
        generated = generate(self.generator, noise, prompts, steps=1)
        return torch.lerp(generated, renders, RENDERED * torch.rand(len(noise), 1, 1, 1, generator=rng))

    def _decode(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Encode pictures [B, 3, H, W], add noise to the latents, and decode them."""
        if self.autoencoder is None:
            return images
        latents = self.autoencoder.encode(images * 2 - 1).latents
        amount = LATENT_NOISE * torch.rand(len(images), 1, 1, 1, generator=rng)
        latents = latents + amount * torch.randn(latents.shape, generator=rng)
        return (self.autoencoder.decode(latents).sample / 2 + 0.5).clamp(0, 1)
