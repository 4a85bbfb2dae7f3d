"""Dual-process distillation as its paper writes it, straight, to compare `preset: paper` with.

Nothing of the product is used. The denoising loops, the clean estimates, LoRA, the VLM's full forward for
every question, AdamW and the clipping are written out; models and tokenizers are the libraries'.
"""

import inspect
import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Step:
    """What is random in an optimizer step: the prompt, the noise's seed, and the denoising step, from 1."""

    prompt: str
    seed: int
    denoising_step: int


class LoraLayer(nn.Module):
    """y = W x + 2.5 B A x, with A and B given; a convolution's A has its size, and B is 1 x 1."""

    def __init__(self, base, a, b):
        super().__init__()
        self.base, self.a, self.b = base, a, b

    def forward(self, x):
        if isinstance(self.base, nn.Linear):
            return self.base(x) + 2.5 * F.linear(F.linear(x, self.a), self.b)
        low = F.conv2d(x, self.a, None, self.base.stride, self.base.padding)
        return self.base(x) + 2.5 * F.conv2d(low, self.b)


def add_lora(denoiser, adapter):
    """Put LoRA into ``denoiser``, by the names in an adapter's file; return A and B of every layer."""
    weights = {name: nn.Parameter(value.clone()) for name, value in adapter.items()}
    for name in [name.removesuffix(".lora_A.weight") for name in adapter if "lora_A" in name]:
        parent, _, child = name.rpartition(".")
        layer = LoraLayer(
            denoiser.get_submodule(name), weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"]
        )
        setattr(denoiser.get_submodule(parent), child, layer)
    return weights


def flow_sigmas(sigmas, shift):
    """The straight path's share of noise at every step, and 0 after the last."""
    return [shift * s / (1 + (shift - 1) * s) for s in sigmas] + [0.0]


def denoise(predict, sample, ahead, clean, step):
    """Go ``step - 1`` steps without gradient; return the next one's clean estimate, with its gradient."""
    with torch.no_grad():
        for index in range(step - 1):
            sample = ahead(sample, predict(sample, index), index)
    return clean(sample, predict(sample, step - 1), step - 1)


def flux(pipe, size, steps, guidance, take):
    """FLUX's picture [1, 3, H, W] in [0, 1] from the clean estimate of one of its steps."""
    embeds, pooled, text_ids = pipe.encode_prompt(
        take.prompt, None, max_sequence_length=pipe.tokenizer_2.model_max_length
    )
    side = size // pipe.vae_scale_factor
    channels = pipe.transformer.config.in_channels // 4
    noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(take.seed))
    packed = (
        noise.view(1, channels, side // 2, 2, side // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    )
    rows, columns = torch.meshgrid(torch.arange(side // 2), torch.arange(side // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()
    sigmas = flow_sigmas([1 - index / steps for index in range(steps)], pipe.scheduler.config.shift)
    scale = torch.tensor([guidance]) if pipe.transformer.config.guidance_embeds else None

    def predict(sample, index):
        return pipe.transformer(
            hidden_states=sample,
            timestep=torch.tensor([sigmas[index]]),
            guidance=scale,
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=text_ids,
            img_ids=ids,
            return_dict=False,
        )[0]

    clean = denoise(
        predict,
        packed,
        lambda x, v, i: x + (sigmas[i + 1] - sigmas[i]) * v,
        lambda x, v, i: x - sigmas[i] * v,
        take.denoising_step,
    )
    grid = clean.view(1, side // 2, side // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(noise.shape)
    return decode(pipe, grid, pipe.vae.config.shift_factor)


def sana(pipe, size, steps, guidance, take):
    """SANA's: classifier-free guidance, flow matching with a shift that is applied to shifted bounds."""
    takes = inspect.signature(type(pipe).__call__).parameters
    embeds, mask, no_embeds, no_mask = pipe.encode_prompt(
        take.prompt,
        True,
        negative_prompt="",
        complex_human_instruction=takes["complex_human_instruction"].default,
    )
    side = size // pipe.vae_scale_factor
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(take.seed))
    shift = pipe.scheduler.config.shift
    last = shift * 0.001 / (1 + (shift - 1) * 0.001)
    sigmas = flow_sigmas([1 - (1 - last) * index / (steps - 1) for index in range(steps)], shift)

    def predict(sample, index):
        prediction = pipe.transformer(
            hidden_states=torch.cat([sample, sample]),
            encoder_hidden_states=torch.cat([no_embeds, embeds]),
            encoder_attention_mask=torch.cat([no_mask, mask]),
            timestep=1000 * torch.tensor([sigmas[index]] * 2),
            return_dict=False,
        )[0]
        without, with_prompt = prediction.chunk(2)
        return without + guidance * (with_prompt - without)

    clean = denoise(
        predict,
        noise,
        lambda x, v, i: x + (sigmas[i + 1] - sigmas[i]) * v,
        lambda x, v, i: x - sigmas[i] * v,
        take.denoising_step,
    )
    return decode(pipe, clean)


def stable_diffusion(pipe, size, steps, guidance, take):
    """Stable Diffusion's: classifier-free guidance, DDIM (Song et al. 2021, eq. 12, with sigma 0)."""
    embeds, no_embeds = pipe.encode_prompt(take.prompt, "cpu", 1, True)
    side = size // pipe.vae_scale_factor
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(take.seed))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = (1 - betas).cumprod(0)
    times = [(steps - 1 - index) * (1000 // steps) + 1 for index in range(steps)]

    def predict(sample, index):
        prediction = pipe.unet(
            torch.cat([sample, sample]), times[index], torch.cat([no_embeds, embeds]), return_dict=False
        )[0]
        without, with_prompt = prediction.chunk(2)
        return without + guidance * (with_prompt - without)

    def clean(sample, eps, index):
        a = alphas[times[index]]
        return (sample - (1 - a).sqrt() * eps) / a.sqrt()

    def ahead(sample, eps, index):
        before = times[index] - 1000 // steps
        a = alphas[before] if before >= 0 else alphas[0]
        return a.sqrt() * clean(sample, eps, index) + (1 - a).sqrt() * eps

    return decode(pipe, denoise(predict, noise, ahead, clean, take.denoising_step))


def decode(pipe, latents, shift=0.0):
    """Decode clean latents to a picture in [0, 1]."""
    latents = latents / pipe.vae.config.scaling_factor + shift
    return (pipe.vae.decode(latents, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


def answer_loss(vlm, processor, image, question, answer):
    """Cross-entropy of the answer's tokens, by a full forward of the VLM; the picture has its size."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    blank = [[Image.new("RGB", (image.shape[-1], image.shape[-2]))]]
    inputs = processor(text=[f"{prompt} {answer}"], images=blank, return_tensors="pt")
    count = inputs["input_ids"].shape[1]
    count -= processor(text=[prompt], images=blank, return_tensors="pt")["input_ids"].shape[1]
    mean = torch.tensor(processor.image_processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_processor.image_std).view(3, 1, 1)
    inputs["pixel_values"] = ((image - mean) / std).view_as(inputs["pixel_values"])
    logits = vlm(**inputs).logits[0, -count - 1 : -1].float()
    return F.cross_entropy(logits, inputs["input_ids"][0, -count:])


def distil(draw, pipe, vlm, processor, settings, questions, adapter, taken, learning_rate):
    """Take the steps in ``taken``; return their losses, and the adapter after them.

    Args:
        draw: `flux`, `sana` or `stable_diffusion`.
        pipe, vlm, processor: frozen models.
        settings: size in pixels, denoising steps and guidance scale.
        questions: question, answer, and the picture that is laid over at 50 %, or None, of each.
        adapter: A and B of every layer at the start, by their names in an adapter's file.
        taken: what is random, step by step.
        learning_rate: AdamW's; betas .9 and .999, no weight decay; the gradient is clipped to norm 1.
    """
    weights = add_lora(getattr(pipe, "transformer", None) or pipe.unet, adapter)
    mean = {name: torch.zeros_like(value) for name, value in weights.items()}
    square = {name: torch.zeros_like(value) for name, value in weights.items()}
    losses = []
    for number, take in enumerate(taken, 1):
        image = draw(pipe, *settings, take)
        found = [
            answer_loss(vlm, processor, image if over is None else (image + over) / 2, question, answer)
            for question, answer, over in questions
        ]
        loss = torch.stack(found).mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is None:
                    continue
                gradient = gradient * min(1.0, 1.0 / (norm + 1e-6))
                mean[name] = 0.9 * mean[name] + 0.1 * gradient
                square[name] = 0.999 * square[name] + 0.001 * gradient**2
                rise = mean[name] / (1 - 0.9**number)
                spread = (square[name] / (1 - 0.999**number)).sqrt() + 1e-8
                weight -= learning_rate * rise / spread
    return losses, {name: weight.detach() for name, weight in weights.items()}


def update(weights: dict[str, Tensor]) -> Tensor:
    """What the adapter adds to the weights of all layers, in one row."""
    names = sorted(name.removesuffix(".lora_A.weight") for name in weights if "lora_A" in name)
    layers = [(weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"]) for name in names]
    return torch.cat([(2.5 * b.flatten(1) @ a.flatten(1)).flatten() for a, b in layers])
