"""The control spec: every setting of a control, with its default and its description."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from dualproc_cli.spec.fields import (
    Answer,
    Flag,
    Fraction,
    Name,
    Side,
    SpecModel,
    Text,
    not_a_truth_value,
    number,
    whole,
)
from dualproc_cli.spec.measures import AnyMeasure
from dualproc_cli.spec.visual_prompts import VisualPromptSpec

MINIATURE = "miniature"
_PRESET = " If left out, the model's preset applies."

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8", "nf4"]
MemoryStrategy = Literal[
    "free-text-encoders",
    "checkpoint-vae",
    "checkpoint-denoiser",
    "two-devices",
    "offload-activations",
    "tile-vae",
    "int8",
    "nf4",
    "half-image",
]
Objective = Literal["likelihood", "choice", "choice-per-token"]
NEED_ALTERNATIVES: tuple[Objective, ...] = ("choice", "choice-per-token")


# Either the word auto or a list of names.
_AUTO_OR_NAMES = Discriminator(lambda value: "auto" if isinstance(value, str) else "names")
_Auto = Annotated[Literal["auto"], Tag("auto")]
Memory = Annotated[_Auto | Annotated[tuple[MemoryStrategy, ...], Tag("names")], _AUTO_OR_NAMES]
TargetModules = Annotated[
    _Auto | Annotated[tuple[Text, ...], Field(min_length=1), Tag("names")], _AUTO_OR_NAMES
]


class GeneratorSpec(SpecModel):
    """The text-to-image generator that learns, and how it draws."""

    model: Text = Field(
        default=MINIATURE, description="Hub id, local directory, or miniature (the embedded default)."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the hub; null is the newest."
    )
    width: Side = Field(
        default=1024, description="Width of the pictures in pixels, a multiple of 8." + _PRESET
    )
    height: Side = Field(
        default=1024, description="Height of the pictures in pixels, a multiple of 8." + _PRESET
    )
    steps: Annotated[int, whole(ge=1, le=1000)] = Field(default=4, description="Denoising steps." + _PRESET)
    guidance_scale: Annotated[float, number(ge=0, le=100)] = Field(
        default=0.0, description="Scale of classifier-free or embedded guidance." + _PRESET
    )
    dtype: Dtype = Field(
        default="auto", description="Precision; auto is bfloat16 on CUDA and float32 elsewhere."
    )
    quantization: Quantization = Field(default="none", description="Quantization of the frozen weights.")
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
    image_scale: Annotated[float, number(gt=0, le=1)] = Field(
        default=1.0,
        description="Scale of the picture that the VLM is shown, as a fraction of its width and height.",
    )
    trust_remote_code: Flag = Field(
        default=False, description="Whether code that comes with the model may run."
    )


class PromptsSpec(SpecModel):
    """What the generator is asked to draw."""

    train: tuple[Text, ...] = Field(
        min_length=1, description="Prompts for learning; each picture is drawn from a random one."
    )
    held_out: tuple[Text, ...] = Field(
        default=(), description="Prompts that are never trained on, for evaluation."
    )


class RegionSpec(SpecModel):
    """A part of the picture. Its edges are fractions of the picture, measured from the top left."""

    left: Fraction = Field(default=0.0, description="Left edge.")
    top: Fraction = Field(default=0.0, description="Top edge.")
    right: Fraction = Field(default=1.0, description="Right edge, beyond the left one.")
    bottom: Fraction = Field(default=1.0, description="Bottom edge, below the top one.")


class Question(SpecModel):
    """A question about the picture and the answer that is wanted."""

    name: Name = Field(description="Name in reports; unique within the spec.")
    question: Text = Field(description="What the VLM is asked about the picture.")
    answer: Answer = Field(
        description="The expected answer: any text the VLM could give, taken as it is written."
    )
    alternatives: tuple[Answer, ...] = Field(
        default=(), description="The answers that the expected one competes with."
    )
    visual_prompt: Name | None = Field(
        default=None, description="Name of the visual prompt that the question refers to."
    )
    region: RegionSpec | None = Field(
        default=None,
        description="The part of the picture, visual prompt included, that the VLM is shown; null is all.",
    )
    weight: Annotated[float, number(ge=0, le=1e6)] = Field(
        default=1.0, description="Weight of the question in the loss."
    )
    paraphrases: tuple[Text, ...] = Field(
        default=(), description="Other wordings, drawn at random while learning."
    )

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that the VLM may be given: wordings and answers."""
        return (self.question, *self.paraphrases, self.answer, *self.alternatives)


class AdapterSpec(SpecModel):
    """The adapter that is learned."""

    type: Literal["lora"] = Field(default="lora", description="lora: a low-rank update, W + scale B A.")
    rank: Annotated[int, whole(ge=1, le=1024)] = Field(default=16, description="Rank of the low-rank update.")
    scale: Annotated[float, number(gt=0, le=1000)] = Field(
        default=5.0, description="Factor of the low-rank update: LoRA's alpha is scale times rank." + _PRESET
    )
    target_modules: TargetModules = Field(
        default="auto",
        description="auto (attention and feed-forward projections), or endings of module names such as to_q.",
    )

    @property
    def alpha(self) -> float:
        """LoRA's alpha: the update is multiplied by alpha / rank."""
        return self.scale * self.rank


class GradientSpec(SpecModel):
    """Which denoising steps are differentiated."""

    through: Literal["last-steps", "x0-jump"] = Field(
        default="last-steps",
        description="last-steps: the last denoising steps carry the gradient; "
        "x0-jump: one step does, and the clean picture that it predicts is decoded.",
    )
    steps: Annotated[int, whole(ge=1, le=1000)] = Field(
        default=1,
        description="last-steps: how many steps carry the gradient; x0-jump: which step does, from 1.",
    )


Pull = Annotated[float, number(ge=0, le=1e6)]


class KeepSpec(SpecModel):
    """How strongly the pictures are kept close to the base generator's, drawn from the same noise."""

    picture: Pull = Field(
        default=0.0, description="Weight of the mean absolute difference of the pixels." + _PRESET
    )
    structure: Pull = Field(
        default=0.0,
        description="Weight of the mean absolute difference of the image gradients, which leaves the colours "
        "free." + _PRESET,
    )
    smoothness: Pull = Field(
        default=0.0, description="Weight of the total variation in excess of the base picture's." + _PRESET
    )

    @property
    def matters(self) -> bool:
        """Whether any weight is above 0; otherwise the base picture is not needed."""
        return self.picture > 0 or self.structure > 0 or self.smoothness > 0


class JitterSpec(SpecModel):
    """Random changes to what the VLM sees while learning, which make it harder to fool."""

    noise: Annotated[float, number(ge=0, le=1)] = Field(
        default=0.0, description="Standard deviation of pixel noise."
    )
    shift: Annotated[float, number(ge=0, le=0.5)] = Field(
        default=0.0,
        description="Largest shift of picture and visual prompt together, as a fraction of the picture.",
    )


class LearnSpec(SpecModel):
    """How the adapter is learned."""

    steps: Annotated[int, whole(ge=1, le=1_000_000)] = Field(default=100, description="Optimizer steps.")
    batch_size: Annotated[int, whole(ge=1, le=1024)] = Field(default=4, description="Pictures per step.")
    learning_rate: Annotated[float, number(gt=0, le=10)] = Field(
        default=5e-5, description="AdamW's learning rate." + _PRESET
    )
    seed: Annotated[int, whole(ge=0, lt=2**63)] = Field(
        default=0, description="Seed of everything that is drawn at random."
    )
    objective: Objective = Field(
        default="likelihood",
        description="likelihood: mean negative log-likelihood of the answer's tokens. choice: negative "
        "logarithm of P(answer), the answer's share of the probability among itself and its alternatives, "
        "which favours short answers. choice-per-token: the same with each answer's mean log-likelihood per "
        "token, for answers of different lengths. likelihood reports P(answer) as choice does.",
    )
    gradient_clip: Annotated[float, number(gt=0, le=1e6)] = Field(
        default=1.0, description="Largest norm of the gradient."
    )
    stop_at: Annotated[float, number(gt=0, lt=1)] | None = Field(
        default=None,
        description="Stop once P(answer) of every question with a weight stays above this, such as 0.9.",
    )
    checkpoint_every: Annotated[int, whole(ge=1, le=1_000_000)] = Field(
        default=25, description="Steps between checkpoints."
    )
    adapter: AdapterSpec = Field(default=AdapterSpec(), description="The adapter that is learned.")
    gradient: GradientSpec = Field(
        default=GradientSpec(), description="Which denoising steps are differentiated."
    )
    keep: KeepSpec = Field(
        default=KeepSpec(), description="How strongly the pictures are kept close to the base generator's."
    )
    jitter: JitterSpec = Field(
        default=JitterSpec(), description="Random changes to what the VLM sees while learning."
    )


class EvaluateSpec(SpecModel):
    """How success is measured."""

    seeds: Annotated[int, whole(ge=1, le=100_000)] = Field(
        default=32, description="Held-out seeds per prompt."
    )
    vlm: VlmSpec | None = Field(default=None, description="A second VLM that was not trained against.")
    measures: tuple[AnyMeasure, ...] = Field(
        default=(),
        description="Measures that do not use the VLM: names of the miniature's measures, or mappings.",
    )


class ControlSpec(SpecModel):
    """A visual control: generator, VLM, prompts, visual prompts, questions, and how to learn and to evaluate.

    The model checks each value alone. ``load_spec`` also checks how values relate to each other and to files,
    and fills in the presets: use it, except in tests.
    """

    version: Annotated[Literal[1], BeforeValidator(not_a_truth_value)] = Field(
        default=1, description="Version of this language."
    )
    name: Name = Field(description="Name of the control: lower-case letters, digits and hyphens.")
    description: Annotated[str, Field(max_length=4000)] = Field(
        default="", description="What the control does, in a sentence."
    )
    generator: GeneratorSpec = Field(default=GeneratorSpec(), description="The generator that learns.")
    vlm: VlmSpec = Field(default=VlmSpec(), description="The frozen VLM that judges the pictures.")
    prompts: PromptsSpec = Field(description="What the generator is asked to draw.")
    visual_prompts: dict[Name, VisualPromptSpec] = Field(
        default={},
        description="Named pictures that are laid over the generated image before the VLM sees it.",
    )
    questions: tuple[Question, ...] = Field(
        min_length=1, description="What the VLM is asked about the pictures."
    )
    learn: LearnSpec = Field(default=LearnSpec(), description="How the adapter is learned.")
    evaluate: EvaluateSpec = Field(default=EvaluateSpec(), description="How success is measured.")
    memory: Memory = Field(
        default="auto",
        description="Memory strategies: auto adds one after another until the run fits into its device's "
        "memory, exact ones first; a list names those to use.",
    )
