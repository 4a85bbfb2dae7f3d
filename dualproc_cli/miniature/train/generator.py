"""The generator: a rectified flow whose starting noise says which scene to draw."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dualproc_cli.miniature.captions import captions
from dualproc_cli.miniature.coupling import LATENT_CHANNELS, LATENT_SIZE, TOKEN_CHANNELS, TOKENS, numbers_in, uniforms_in
from dualproc_cli.miniature.render import Rendering, render
from dualproc_cli.miniature.scene import SIZE, sample_prompts, scene_from_uniforms
from dualproc_cli.miniature.train.generator_model import (
    TEXT_LENGTH,
    build_pipeline,
    build_text_encoders,
    build_tokenizer,
    build_transformer,
)
from dualproc_cli.miniature.train.loop import Task, Training

ONE_STEP = 0.65  # share of the samples at full noise, which one-step drawing needs; the rest at the other steps of four
SUBJECT_WEIGHT = 4.0  # errors where a subject or its outline is weigh this much more than in the sky
PAIRS = 0.3


class Learner(nn.Module):
    """Text encoders and transformer; the autoencoder stays as it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = build_tokenizer()
        self.clip, self.t5 = build_text_encoders(self.tokenizer)
        self.transformer = build_transformer()
        self.numbers = nn.Linear(self.transformer.inner_dim, TOKEN_CHANNELS)  # reads the noise back after block 0
        self.vae = AutoencoderTiny.from_pretrained(folder / "vae").eval().requires_grad_(False)
        self.seen: list[Tensor] = []
        self.transformer.transformer_blocks[0].register_forward_hook(lambda *args: self.seen.append(args[2][1]))
        self.image_ids = FluxPipeline._prepare_latent_image_ids(1, LATENT_SIZE // 2, LATENT_SIZE // 2, "cpu", torch.float32)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Packed latents [B, TOKENS, TOKEN_CHANNELS] of images in [0, 1], as the pipeline scales them."""
        latents = self.vae.encode(images * 2 - 1).latents
        latents = (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return FluxPipeline._pack_latents(latents, len(images), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)

    def velocity(self, latents: Tensor, time: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Predicted velocity [B, TOKENS, TOKEN_CHANNELS] and the noise's numbers [B, TOKEN_CHANNELS] read back."""
        unique = sorted(set(prompts))
        ids = self.tokenizer(
            unique, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        index = torch.tensor([unique.index(prompt) for prompt in prompts])
        self.seen.clear()
        with sdpa_kernel([SDPBackend.MATH]):
            velocity = self.transformer(
                hidden_states=latents,
                timestep=time,
                pooled_projections=self.clip(ids).pooler_output[index],
                encoder_hidden_states=self.t5(ids).last_hidden_state[index],
                txt_ids=torch.zeros(TEXT_LENGTH, 3),
                img_ids=self.image_ids,
                return_dict=False,
            )[0]
        return velocity, self.numbers(self.seen[0].mean(1))


def task(samples: int, folder: Path) -> Task:
    learner = Learner(folder)

    def loss(rng: torch.Generator, batch_size: int) -> dict[str, Tensor]:
        noise = torch.randn(batch_size, TOKENS, TOKEN_CHANNELS, generator=rng)
        kind, look = sample_prompts(batch_size, rng, PAIRS)
        rendering = render(scene_from_uniforms(uniforms_in(noise), kind, look))
        prompts = captions(kind, look, rng)
        latents = learner.encode(rendering.images)
        draw = torch.rand(batch_size, generator=rng)
        other = torch.where(draw < 0.92, torch.randint(1, 4, (batch_size,), generator=rng) / 4, torch.rand(batch_size, generator=rng))
        time = torch.where(draw < ONE_STEP, 1.0, other.clamp(min=0.02))
        along = time[:, None, None]
        velocity, numbers = learner.velocity((1 - along) * latents + along * noise, time, prompts)
        error = (velocity - (noise - latents)) * _weights(rendering)
        return {
            "velocity": (torch.sqrt(error.square() + 0.04) - 0.2).mean() + 0.25 * error.square().mean(),
            "numbers": 0.1 * F.mse_loss(numbers, numbers_in(noise)),
        }

    hidden = lambda name, p: p.ndim == 2 and "transformer_blocks" in name  # noqa: E731
    return Task("generator", learner, loss, samples, batch_size=64, learning_rate=1.5e-3, muon=hidden)


def _weights(rendering: Rendering) -> Tensor:
    """Weight of each token's error [B, TOKENS, 1], mean about 1: more where subjects and outlines are."""
    matters = torch.maximum(rendering.subject.amax(1), rendering.ink)[:, None]
    share = F.max_pool2d(F.avg_pool2d(matters, 4), SIZE // LATENT_SIZE // 2)  # [B, 1, 8, 8]
    weights = 1 + (SUBJECT_WEIGHT - 1) * share.clamp(max=1).flatten(2).transpose(1, 2)
    return (weights / weights.mean()).sqrt()


@torch.no_grad()
def draw(learner: Learner, noise: Tensor, prompts: list[str], steps: int) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] by the pipeline itself, from packed noise."""
    pipeline = build_pipeline(learner.transformer, learner.clip, learner.t5, learner.tokenizer, learner.vae)
    parts = [
        pipeline(
            some, height=SIZE, width=SIZE, num_inference_steps=steps, guidance_scale=0.0, latents=latents,
            max_sequence_length=TEXT_LENGTH, output_type="pt",
        ).images
        for some, latents in zip([prompts[i : i + 32] for i in range(0, len(prompts), 32)], noise.split(32), strict=True)
    ]  # fmt: skip
    return torch.cat(parts)


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the pipeline of averaged weights in half precision; returns held-out figures."""
    training.use_average()
    learner: Learner = training.task.modules  # type: ignore[assignment]
    rng = torch.Generator().manual_seed(1_000_003)
    noise = torch.randn(512, TOKENS, TOKEN_CHANNELS, generator=rng)
    kind, look = sample_prompts(512, rng, PAIRS)
    prompts = captions(kind, look, rng)
    truth = render(scene_from_uniforms(uniforms_in(noise), kind, look)).images
    figures = {}
    for steps in (1, 4):
        error = (draw(learner, noise, prompts, steps) - truth).square().mean((1, 2, 3))
        figures[f"psnr_{steps}_step_db"] = float(-10 * error.mean().log10())
    pipeline = build_pipeline(learner.transformer, learner.clip, learner.t5, learner.tokenizer, learner.vae)
    pipeline.to(dtype=torch.float16).save_pretrained(folder / "generator_folder")
    return figures
