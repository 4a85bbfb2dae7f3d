"""The generator: a rectified flow whose starting noise says which scene to draw."""

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
    build_pipeline,
    build_text_encoders,
    build_tokenizer,
    build_transformer,
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

ONE_STEP = 0.65  # share of samples at full noise, for one-step drawing; the rest at the other steps of four
DETAIL_WEIGHT = 4.0  # errors at subjects, outlines, sun, moon and stars weigh this much more than elsewhere
PAIRS = 0.3
CHUNK, PART, REUSE = 4096, 128, 6  # scenes rendered and encoded at a time, and how often each is used


class Learner(nn.Module):
    """Text encoders and transformer; the autoencoder stays as it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = build_tokenizer()
        self.clip, self.t5 = build_text_encoders(self.tokenizer)
        transformer: Any = build_transformer()
        self.transformer = transformer
        # A third faster on a CPU.
        self.forward_transformer = torch.compile(transformer.forward, dynamic=False)
        vae: Any = AutoencoderTiny.from_pretrained(folder / "vae").eval().requires_grad_(False)
        self.vae = vae.to(torch.get_default_device(), memory_format=torch.channels_last)
        self.image_ids = FluxPipeline._prepare_latent_image_ids(
            1, LATENT_SIZE // 2, LATENT_SIZE // 2, torch.get_default_device(), torch.float32
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Packed latents [B, TOKENS, TOKEN_CHANNELS] of images in [0, 1], as the pipeline scales them."""
        images = images.contiguous(memory_format=torch.channels_last)
        with half_precision():  # with it, and with the channels last, in 0.3 of the time
            latents = self.vae.encode(images * 2 - 1).latents.float()
        latents = (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return FluxPipeline._pack_latents(latents, len(images), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)

    def velocity(self, latents: Tensor, time: Tensor, prompts: list[str]) -> Tensor:
        """Predicted velocity [B, TOKENS, TOKEN_CHANNELS] of packed latents at times [B] in [0, 1]."""
        unique = sorted(set(prompts))
        ids = self.tokenizer(
            unique, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        index = torch.tensor([unique.index(prompt) for prompt in prompts])
        # The math kernel, because the fused one's backward is slower at 32 numbers a head than all the rest.
        with sdpa_kernel([SDPBackend.MATH]), half_precision():
            velocity = self.forward_transformer(
                hidden_states=latents,
                timestep=time,
                pooled_projections=self.clip(ids).pooler_output[index],
                encoder_hidden_states=self.t5(ids).last_hidden_state[index],
                txt_ids=torch.zeros(TEXT_LENGTH, 3),
                img_ids=self.image_ids,
                return_dict=False,
            )[0]
        return velocity.float()


@dataclass
class Chunk:
    """Scenes rendered and encoded once, used REUSE times with other noise that stands for the same scene."""

    latents: Tensor  # [N, TOKENS, TOKEN_CHANNELS]
    numbers: Tensor  # [N, UNIFORMS] normal numbers that the noise has to carry
    weights: Tensor  # [N, TOKENS, 1]
    prompts: list[str]


def make_chunk(learner: Learner, rng: torch.Generator) -> Chunk:
    """Draw CHUNK scenes, each from noise."""
    parts = [_make_part(learner, rng) for _ in range(CHUNK // PART)]
    latents, numbers, weights, prompts = zip(*parts, strict=True)
    flat = [prompt for part in prompts for prompt in part]
    return Chunk(torch.cat(latents), torch.cat(numbers), torch.cat(weights), flat)


def _make_part(learner: Learner, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    noise = torch.randn(PART, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(PART, rng, PAIRS)
    rendering = render(scene_from_uniforms(uniforms_in(noise), kind, look))
    numbers = numbers_in(noise)[:, :UNIFORMS]
    return learner.encode(rendering.images), numbers, _weights(rendering), captions(kind, look, rng)


def task(samples: int, folder: Path, seed: int) -> Task:
    learner = Learner(folder)
    chunks = Chunks(lambda rng: make_chunk(learner, rng), seed, CHUNK * REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        chunk = chunks.at(step * batch_size)
        which = torch.randint(CHUNK, (batch_size,), generator=rng)
        noise = noise_with(
            chunk.numbers[which], torch.randn(batch_size, TOKENS, TOKEN_CHANNELS, generator=rng)
        )
        latents, prompts = chunk.latents[which], [chunk.prompts[index] for index in which.tolist()]
        time = _draw_times(batch_size, rng)
        along = time[:, None, None]
        velocity = learner.velocity((1 - along) * latents + along * noise, time, prompts)
        error = (velocity - (noise - latents)) * chunk.weights[which]
        return {"velocity": (torch.sqrt(error.square() + 0.04) - 0.2).mean() + 0.25 * error.square().mean()}

    return Task("generator", learner, loss, samples, batch_size=64, learning_rate=1.5e-3, muon=_hidden)


def _hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "transformer_blocks" in name


def _draw_times(count: int, rng: torch.Generator) -> Tensor:
    """Mostly full noise, else one of the other steps of four, seldom any time."""
    draw = torch.rand(count, generator=rng)
    quarter = torch.randint(1, 4, (count,), generator=rng) / 4
    other = torch.where(draw < 0.92, quarter, torch.rand(count, generator=rng).clamp(min=0.02))
    return torch.where(draw < ONE_STEP, 1.0, other)


def _weights(rendering: Rendering) -> Tensor:
    """Weight of each token's error [B, TOKENS, 1], mean about 1: more where there is much to see."""
    matters = torch.stack([*rendering.subject.unbind(1), rendering.ink, rendering.lights], 1)
    matters = matters.amax(1, keepdim=True)
    share = F.max_pool2d(F.avg_pool2d(matters, 4), SIZE // LATENT_SIZE // 2)  # [B, 1, 8, 8]
    weights = 1 + (DETAIL_WEIGHT - 1) * share.clamp(max=1).flatten(2).transpose(1, 2)
    return (weights / weights.mean()).sqrt()


@torch.no_grad()
def draw(learner: Learner, noise: Tensor, prompts: list[str], steps: int) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] by the pipeline itself, from packed noise."""
    pipeline: Any = build_pipeline(
        learner.transformer, learner.clip, learner.t5, learner.tokenizer, learner.vae
    )
    parts = [slice(start, start + 32) for start in range(0, len(prompts), 32)]
    pictures = [
        pipeline(
            prompts[part], height=SIZE, width=SIZE, num_inference_steps=steps, guidance_scale=0.0,
            latents=noise[part], max_sequence_length=TEXT_LENGTH, output_type="pt",
        ).images
        for part in parts
    ]  # fmt: skip
    return torch.cat(pictures)


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the pipeline of averaged weights in half precision; returns held-out figures."""
    training.use_average()
    learner = cast(Learner, training.task.modules)
    rng = seeded(1_000_003)
    noise = torch.randn(512, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(512, rng, PAIRS)
    prompts = captions(kind, look, rng)
    truth = render(scene_from_uniforms(uniforms_in(noise), kind, look)).images
    figures = {}
    for steps in (1, 4):
        error = (draw(learner, noise, prompts, steps) - truth).square().mean((1, 2, 3))
        figures[f"psnr_{steps}_step_db"] = float(-10 * error.mean().log10())
    pipeline: Any = build_pipeline(
        learner.transformer, learner.clip, learner.t5, learner.tokenizer, learner.vae
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder / "generator")
    return figures
