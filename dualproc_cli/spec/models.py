"""The models of a spec, and how a run of them fits into the memory of its device."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from dualproc_cli.spec.fields import (
    AUTO_OR_NAMES,
    PRESET,
    Auto,
    Device,
    Flag,
    Options,
    Side,
    SpecModel,
    Text,
    number,
    whole,
)

MINIATURE = "miniature"

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8", "nf4"]
MemoryStrategy = Literal[
    "free-text-encoders",
    "half-batches",
    "single-pictures",
    "checkpoint-vae",
    "checkpoint-denoiser",
    "two-devices",
    "spread-denoiser",
    "offload-activations",
    "tile-vae",
    "int8",
    "nf4",
    "half-image",
]
Memory = Annotated[Auto | Annotated[tuple[MemoryStrategy, ...], Tag("names")], AUTO_OR_NAMES]


class LoadedAdapterSpec(SpecModel):
    """An adapter that the generator already carries."""

    path: Text = Field(
        description="A LoRA's .safetensors file, or a folder that holds one, such as another control's "
        "bundle; relative to the spec and inside its folder."
    )
    scale: Annotated[float, number(ge=-100, le=100)] = Field(
        default=1.0, description="Its strength; 1 is as it was made."
    )


class GeneratorSpec(SpecModel):
    """The text-to-image generator that learns, and how it draws."""

    model: Text = Field(
        default=MINIATURE,
        description="Hub id, local directory, single .safetensors file, or miniature (the embedded default).",
    )
    base: Text | None = Field(
        default=None,
        description="For a single file: the hub id or local directory that gives its configuration, and the "
        "parts that it lacks; null is what diffusers takes for such a file.",
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the hub; null is the newest."
    )
    width: Side = Field(default=512, description="Width of the pictures in pixels, a multiple of 8." + PRESET)
    height: Side = Field(
        default=512, description="Height of the pictures in pixels, a multiple of 8." + PRESET
    )
    steps: Annotated[int, whole(ge=1, le=1000)] = Field(default=28, description="Denoising steps." + PRESET)
    guidance_scale: Annotated[float, number(ge=0, le=100)] = Field(
        default=3.5, description="Scale of classifier-free or embedded guidance." + PRESET
    )
    dtype: Dtype = Field(
        default="auto", description="Precision; auto is bfloat16 on CUDA and float32 elsewhere."
    )
    quantization: Quantization = Field(default="none", description="Quantization of the frozen weights.")
    scheduler: Options = Field(
        default={},
        description="Options of the pipeline's scheduler that differ from its own, such as "
        "use_dynamic_shifting; class replaces the scheduler by another of diffusers, such as DDIMScheduler."
        + PRESET,
    )
    adapters: tuple[LoadedAdapterSpec, ...] = Field(
        default=(),
        description="Adapters that the generator already carries, such as a turbo LoRA or another control: "
        "the new one is learned on top of them.",
    )
    device: Device | None = Field(
        default=None, description="Where it runs: cpu, cuda, cuda:1 or mps; null is what --device says."
    )
    compile: Flag = Field(
        default=False,
        description="Whether to compile the denoiser's repeated blocks: about a minute, then faster steps.",
    )
    trust_remote_code: Flag = Field(
        default=False, description="Whether code that comes with the model may run."
    )


class VlmSpec(SpecModel):
    """The frozen vision-language model that judges the pictures."""

    model: Text = Field(
        default=MINIATURE, description="Hub id, local directory, or miniature (the embedded default)."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the hub; null is the newest."
    )
    dtype: Dtype = Field(
        default="auto", description="Precision; auto is bfloat16 on CUDA and float32 elsewhere."
    )
    quantization: Quantization = Field(default="none", description="Quantization of the weights.")
    device: Device | None = Field(
        default=None, description="Where it runs: cpu, cuda, cuda:1 or mps; null is the generator's device."
    )
    image_scale: Annotated[float, number(gt=0, le=1)] = Field(
        default=1.0,
        description="Scale of the picture that the VLM is shown, as a fraction of its width and height.",
    )
    processor: Options = Field(
        default={},
        description="Options of the VLM's image processor that differ from its own, such as "
        "do_image_splitting." + PRESET,
    )
    trust_remote_code: Flag = Field(
        default=False, description="Whether code that comes with the model may run."
    )
