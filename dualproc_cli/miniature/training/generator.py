"""The training of the generator: a rectified flow whose starting noise says which scene to draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dualproc_cli.miniature.training.generator_model import (
    TEXT_LENGTH,
    assemble_pipeline,
    build_text_encoders,
    build_tokenizer,
    build_transformer,
    generate,
)
from dualproc_cli.miniature.training.loop import Chunks, Task, Training, half_precision, seeded
from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.coupling import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    TOKEN_CHANNELS,
    TOKENS,
    noise_with,
    numbers_in,
    uniforms_in,
)
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import SIZE, UNIFORMS, sample_prompts, scene_from_uniforms

FULL_NOISE = 0.65  # share of the samples at full noise, which one-step generation needs
DETAIL_WEIGHT = 4.0  # how much more errors at subjects, outlines, sun, moon and stars count than elsewhere
PAIRS = 0.3  # share of the scenes with two subjects
CHUNK, PART, REUSE = 4096, 128, 6  # scenes made at a time, in parts, and how often each is used


class GeneratorNetworks(nn.Module):
    """The text encoders and the denoiser, which are trained, and the autoencoder, which is frozen."""

    def __init__(self, folder: Path) -> None:
        """Build the networks; the autoencoder is loaded from ``folder``."""
        super().__init__()
        self.tokenizer = build_tokenizer()
        self.clip, self.t5 = build_text_encoders(self.tokenizer)
        transformer: Any = build_transformer()
        self.transformer = transformer
        # Compiled, it is a third faster on a CPU.
        self.compiled_transformer = torch.compile(transformer.forward, dynamic=False)
        vae: Any = AutoencoderTiny.from_pretrained(folder / "vae").eval().requires_grad_(False)
        self.vae = vae.to(torch.get_default_device(), memory_format=torch.channels_last)
        self.image_ids = FluxPipeline._prepare_latent_image_ids(
            1, LATENT_SIZE // 2, LATENT_SIZE // 2, torch.get_default_device(), torch.float32
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, H, W] in [0, 1] to packed, scaled latents [B, TOKENS, TOKEN_CHANNELS]."""
        images = images.contiguous(memory_format=torch.channels_last)
        with half_precision():  # half precision and channels last together take 0.3 of the time
            latents = self.vae.encode(images * 2 - 1).latents.float()
        latents = (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return FluxPipeline._pack_latents(latents, len(images), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)

    def velocity(self, latents: Tensor, time: Tensor, prompts: list[str]) -> Tensor:
        """Predict the velocity [B, TOKENS, TOKEN_CHANNELS] of packed latents at times [B] in [0, 1]."""
        unique = sorted(set(prompts))
        ids = self.tokenizer(
            unique, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        index = torch.tensor([unique.index(prompt) for prompt in prompts])
        # The math kernel: at heads of 32, the fused one's backward takes longer than all the rest of a step.
        with sdpa_kernel([SDPBackend.MATH]), half_precision():
            velocity = self.compiled_transformer(
                hidden_states=latents,
                timestep=time,
                pooled_projections=self.clip(ids).pooler_output[index],
                encoder_hidden_states=self.t5(ids).last_hidden_state[index],
                txt_ids=torch.zeros(TEXT_LENGTH, 3),
                img_ids=self.image_ids,
                return_dict=False,
            )[0]
        return velocity.float()

    def pipeline(self) -> FluxPipeline:
        """Return a pipeline of these networks."""
        return assemble_pipeline(self.transformer, self.clip, self.t5, self.tokenizer, self.vae)


@dataclass
class Chunk:
    """N scenes, rendered and encoded once and used REUSE times, each time with other noise for them.

    Attributes:
        latents: [N, TOKENS, TOKEN_CHANNELS] packed latents of the renders.
        numbers: [N, UNIFORMS] the normal numbers that the noise has to carry.
        weights: [N, TOKENS, 1] how much each token's error counts.
        prompts: one for each scene.
    """

    latents: Tensor
    numbers: Tensor
    weights: Tensor
    prompts: list[str]


def make_chunk(networks: GeneratorNetworks, rng: torch.Generator) -> Chunk:
    """Make CHUNK scenes, each from noise."""
    parts = [_make_part(networks, rng) for _ in range(CHUNK // PART)]
    latents, numbers, weights, prompts = zip(*parts, strict=True)
    flat = [prompt for part in prompts for prompt in part]
    return Chunk(torch.cat(latents), torch.cat(numbers), torch.cat(weights), flat)


def _make_part(networks: GeneratorNetworks, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Make PART scenes, and return the fields of `Chunk`."""
    noise = torch.randn(PART, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(PART, rng, PAIRS)
    rendering = render(scene_from_uniforms(uniforms_in(noise), kind, look))
    numbers = numbers_in(noise)[:, :UNIFORMS]
    return networks.encode(rendering.images), numbers, _weights(rendering), captions(kind, look, rng)


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of training the generator with the autoencoder in ``folder``."""
    networks = GeneratorNetworks(folder)
    chunks = Chunks(lambda rng: make_chunk(networks, rng), seed, CHUNK * REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        chunk = chunks.at(step * batch_size)
        which = torch.randint(CHUNK, (batch_size,), generator=rng)
        noise = noise_with(
            chunk.numbers[which], torch.randn(batch_size, TOKENS, TOKEN_CHANNELS, generator=rng)
        )
        latents, prompts = chunk.latents[which], [chunk.prompts[index] for index in which.tolist()]
        time = _sample_times(batch_size, rng)
        along = time[:, None, None]
        velocity = networks.velocity((1 - along) * latents + along * noise, time, prompts)
        error = (velocity - (noise - latents)) * chunk.weights[which]
        return {"velocity": (torch.sqrt(error.square() + 0.04) - 0.2).mean() + 0.25 * error.square().mean()}

    return Task("generator", networks, loss, samples, 64, 1.5e-3, _moved_by_muon)


def _moved_by_muon(name: str, parameter: nn.Parameter) -> bool:
    """Return whether Muon moves a parameter: the matrices of the denoiser's blocks."""
    return parameter.ndim == 2 and "transformer_blocks" in name


def _sample_times(count: int, rng: torch.Generator) -> Tensor:
    """Sample times [count]: mostly full noise, else one of the other steps of four, seldom any time."""
    draw = torch.rand(count, generator=rng)
    quarter = torch.randint(1, 4, (count,), generator=rng) / 4
    other = torch.where(draw < 0.92, quarter, torch.rand(count, generator=rng).clamp(min=0.02))
    return torch.where(draw < FULL_NOISE, 1.0, other)


def _weights(rendering: Rendering) -> Tensor:
    """Return how much each token's error counts [B, TOKENS, 1]: more at details, about 1 on average."""
    details = torch.stack([*rendering.subject.unbind(1), rendering.ink, rendering.lights], 1)
    details = details.amax(1, keepdim=True)
    share = F.max_pool2d(F.avg_pool2d(details, 4), SIZE // LATENT_SIZE // 2)  # [B, 1, 8, 8]
    weights = 1 + (DETAIL_WEIGHT - 1) * share.clamp(max=1).flatten(2).transpose(1, 2)
    return (weights / weights.mean()).sqrt()


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the pipeline of averaged weights in half precision; return held-out figures."""
    training.use_average()
    pipeline: Any = cast(GeneratorNetworks, training.task.modules).pipeline()
    rng = seeded(1_000_003)
    noise = torch.randn(512, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(512, rng, PAIRS)
    prompts = captions(kind, look, rng)
    truth = render(scene_from_uniforms(uniforms_in(noise), kind, look)).images
    figures = {}
    for steps in (1, 4):
        error = (generate(pipeline, noise, prompts, steps) - truth).square().mean((1, 2, 3))
        figures[f"psnr_{steps}_step_db"] = float(-10 * error.mean().log10())
    pipeline.to(dtype=torch.float16).save_pretrained(folder / "generator")
    return figures
