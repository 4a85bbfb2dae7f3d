"""How a control is learned: every setting, with its default and its description."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from dualproc_cli.spec.fields import (
    AUTO_OR_NAMES,
    PRESET,
    WORD_OR_NUMBER,
    Auto,
    Flag,
    SpecModel,
    Text,
    number,
    whole,
)

MicroBatch = Annotated[
    Auto | Annotated[int, whole(ge=1, le=1024), Tag("number")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "number"),
]
Objective = Literal["likelihood", "choice", "choice-per-token"]
NEED_ALTERNATIVES: tuple[Objective, ...] = ("choice", "choice-per-token")
TargetModules = Annotated[
    Auto | Annotated[tuple[Text, ...], Field(min_length=1), Tag("names")], AUTO_OR_NAMES
]


class AdapterSpec(SpecModel):
    """The adapter that is learned."""

    type: Literal["lora"] = Field(default="lora", description="lora: a low-rank update, W + scale B A.")
    rank: Annotated[int, whole(ge=1, le=1024)] = Field(default=16, description="Rank of the low-rank update.")
    init: Literal["gaussian", "kaiming"] = Field(
        default="kaiming",
        description="How A is drawn; B is zero. gaussian: normal with a standard deviation of 1 / rank. "
        "kaiming: uniform within 1 / sqrt(number of inputs)." + PRESET,
    )
    scale: Annotated[float, number(gt=0, le=1000)] = Field(
        default=5.0, description="Factor of the low-rank update: LoRA's alpha is scale times rank." + PRESET
    )
    target_modules: TargetModules = Field(
        default="auto",
        description="auto (attention and feed-forward projections), or endings of module names such as to_q."
        + PRESET,
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
        "x0-jump: one step does, and the clean picture that it predicts is decoded." + PRESET,
    )
    steps: Annotated[int, whole(ge=1, le=1000)] = Field(
        default=1, description="last-steps: how many steps carry the gradient."
    )
    step: Annotated[
        Annotated[Literal["random", "last"], Tag("word")]
        | Annotated[int, whole(ge=1, le=1000), Tag("number")],
        WORD_OR_NUMBER,
    ] = Field(
        default="random",
        description="x0-jump: which step carries the gradient: its number from 1, last, or random, which "
        "draws one for each optimizer step.",
    )
    renoise: Flag = Field(
        default=False,
        description="x0-jump: whether the picture is drawn to its end first, and the step starts from that "
        "with fresh noise added, instead of from what the loop has reached.",
    )

    def at(self, step: int) -> "GradientSpec":
        """Return these settings with ``step`` in place of a random one."""
        return self.model_copy(update={"step": step}) if self.step == "random" else self


# What the answers' gradient moves. Besides the weights, it is what the frozen generator is given.
Where = Literal["weights", "noise", "conditioning", "colors"]
STEERED: tuple[Where, ...] = ("noise", "conditioning", "colors")
_Where = Annotated[Auto | Annotated[tuple[Where, ...], Field(min_length=1), Tag("names")], AUTO_OR_NAMES]

Pull = Annotated[float, number(ge=0, le=1e6)]


class KeepSpec(SpecModel):
    """How strongly the pictures are kept close to the base generator's, drawn from the same noise."""

    picture: Pull = Field(
        default=0.0, description="Weight of the mean absolute difference of the pixels." + PRESET
    )
    structure: Pull = Field(
        default=0.0,
        description="Weight of the mean absolute difference of the image gradients, which leaves the colours "
        "free." + PRESET,
    )
    smoothness: Pull = Field(
        default=0.0, description="Weight of the total variation in excess of the base picture's." + PRESET
    )
    matting: Pull = Field(
        default=0.0,
        description="Weight of what no local recoloring of the base picture explains: areas may take any "
        "color and edges any contrast, but nothing appears, vanishes, moves or blurs." + PRESET,
    )
    recoloring: Pull = Field(
        default=0.0,
        description="Weight of what no recoloring of the whole base picture explains: what has one color in "
        "it keeps one, whichever that is." + PRESET,
    )
    details: Pull = Field(
        default=0.0,
        description="Weight of the mean absolute change of colors that are rare in the base picture, those "
        "of small things such as a sun or a lit window." + PRESET,
    )
    noise: Pull = Field(
        default=0.02, description="Weight of the nats that steering the noise costs, a picture."
    )
    conditioning: Pull = Field(
        default=0.5,
        description="Weight of the mean square of what steering adds to the text embeddings, in units of "
        "their own: 1 is about the distance of two prompts.",
    )
    colors: Pull = Field(
        default=0.5, description="Weight of the mean absolute change of the pixels by steering the colors."
    )
    clean: Pull = Field(
        default=0.0,
        description="Weight of a further question, whether the picture is clean, for VLMs that can tell."
        + PRESET,
    )

    @property
    def matters(self) -> bool:
        """Whether the base picture is needed: whether any of the weights for it is above 0."""
        terms = self.picture, self.structure, self.smoothness, self.matting, self.recoloring, self.details
        return max(terms) > 0


class SteerSpec(SpecModel):
    """How the steering is learned, where ``learn.where`` asks for it."""

    learning_rate: Annotated[float, number(gt=0, le=10)] = Field(
        default=1e-3, description="AdamW's learning rate for what is steered."
    )
    from_prompts: bool = Field(
        default=True,
        description="Whether prompts, where the conditioning is steered, take the words of those of "
        "prompts.variety whose pictures answer as expected, if each has one: nothing else is steered then.",
    )
    from_answers: bool = Field(
        default=True,
        description="Whether steering the conditioning to open answers, where it led nowhere, begins anew at "
        "what their words, added to the prompts, change of the embeddings.",
    )


class TeachSpec(SpecModel):
    """How an adapter is taught what was steered: by regression on the steered pictures that are right."""

    steps: Annotated[int, whole(ge=1, le=1_000_000)] = Field(default=250, description="Optimizer steps.")
    batch_size: Annotated[int, whole(ge=1, le=1024)] = Field(default=4, description="Pictures per step.")
    learning_rate: Annotated[float, number(gt=0, le=10)] = Field(
        default=1e-3, description="AdamW's learning rate."
    )
    keep_steering: bool = Field(
        default=False, description="Whether the bundle also holds the steering itself, steering.safetensors."
    )


class OptimizerSpec(SpecModel):
    """AdamW's settings besides its learning rate."""

    betas: Annotated[tuple[Annotated[float, number(ge=0, lt=1)], ...], Field(min_length=2, max_length=2)] = (
        Field(
            default=(0.9, 0.99),
            description="Decay of the running means of the gradient and of its square." + PRESET,
        )
    )
    weight_decay: Annotated[float, number(ge=0, le=10)] = Field(
        default=0.01, description="Weight decay of the adapter that the answers move." + PRESET
    )


class JitterSpec(SpecModel):
    """Random changes to what the VLM sees while learning, which make it harder to fool.

    Picture and visual prompt are changed together, and neither shift nor zoom cuts a visual prompt off.
    """

    noise: Annotated[float, number(ge=0, le=1)] = Field(
        default=0.0, description="Standard deviation of pixel noise."
    )
    shift: Annotated[float, number(ge=0, le=0.5)] = Field(
        default=0.0, description="Largest shift, as a fraction of the picture."
    )
    zoom: Annotated[float, number(ge=0, le=0.5)] = Field(
        default=0.0,
        description="Largest change of size, as a fraction, around a random point: 0.1 crops or shrinks the "
        "picture by up to a tenth.",
    )
    blur: Annotated[float, number(ge=0, le=100)] = Field(
        default=0.0, description="Largest standard deviation of a Gaussian blur, in pixels."
    )
    views: Annotated[int, whole(ge=1, le=64)] = Field(
        default=1,
        description="How many views of a picture, each changed by its own draw, the VLM is asked about in a "
        "step; the loss is their mean.",
    )


class LearnSpec(SpecModel):
    """How the adapter is learned."""

    where: _Where = Field(
        default=("weights",),
        description="What the answers' gradient moves. weights: an adapter of the denoiser. noise, "
        "conditioning, colors: what the frozen generator is given, or how its picture is coloured, which an "
        "adapter is then taught. Several are moved together, and the weights after them. auto: noise, and "
        "conditioning too if no question has a visual prompt; weights if all have a palette; noise, then "
        "weights, if one has." + PRESET,
    )
    steps: Annotated[int, whole(ge=1, le=1_000_000)] = Field(
        default=100, description="Optimizer steps in which the VLM is asked."
    )
    batch_size: Annotated[int, whole(ge=1, le=1024)] = Field(
        default=4, description="Pictures per step." + PRESET
    )
    variety: Annotated[float, number(ge=0, le=1)] = Field(
        default=0.5,
        description="Share of the pictures that are drawn from prompts.variety, if there are any, while the "
        "answers move the weights.",
    )
    noise_pool: Annotated[
        Annotated[Literal["fresh", "steps"], Tag("word")]
        | Annotated[int, whole(ge=1, le=1_000_000), Tag("number")],
        WORD_OR_NUMBER,
    ] = Field(
        default="fresh",
        description="From how many noises pictures are drawn, in turn: a number, or steps, as many as "
        "optimizer steps. 1 gives subtle changes of one picture. fresh: each picture has its own." + PRESET,
    )
    micro_batch: MicroBatch = Field(
        default="auto",
        description="Pictures of a step that are drawn and differentiated at once; their gradients are added "
        "up, so the step is the same. auto: all of them, or fewer if memory is short.",
    )
    learning_rate: Annotated[float, number(gt=0, le=10)] = Field(
        default=5e-5, description="AdamW's learning rate." + PRESET
    )
    schedule: Literal["constant", "warmup-stable-decay"] = Field(
        default="warmup-stable-decay",
        description="How the learning rate changes over a phase. warmup-stable-decay: it rises over the "
        "first 10 steps at most and falls linearly over the last 40 %." + PRESET,
    )
    optimizer: OptimizerSpec = Field(
        default=OptimizerSpec(), description="AdamW's settings besides its learning rate."
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
        description="Once P(answer) of every question with a weight stays above this, such as 0.9, the "
        "phase ends: the learning rate falls from there on, for two thirds of the steps so far, and at once "
        "if its schedule is constant." + PRESET,
    )
    extend: Annotated[float, number(ge=1, le=100)] = Field(
        default=1.0,
        description="How many times as many steps a phase may take: if P(answer) of a question is low when "
        "the learning rate would begin to fall, it waits until it is not." + PRESET,
    )
    keep_best: Literal["last", "verdict"] = Field(
        default="last",
        description="verdict: validate every validate_every steps of a phase, stop it when it is good or "
        "gets worse, and go on from its best state. last: take all steps.",
    )
    validate_every: Annotated[int, whole(ge=1, le=1_000_000)] = Field(
        default=50, description="Steps between validations, if keep_best is verdict."
    )
    validation_pictures: Annotated[int, whole(ge=0, le=10_000)] = Field(
        default=48,
        description="Pictures from which the verdict at the end and each validation are taken; their seeds "
        "are neither learned on nor evaluated. 0: learn ends without a verdict.",
    )
    checkpoint_every: Annotated[int, whole(ge=1, le=1_000_000)] = Field(
        default=25, description="Steps between checkpoints."
    )
    steer: SteerSpec = Field(default=SteerSpec(), description="How what is steered is learned.")
    teach: TeachSpec = Field(default=TeachSpec(), description="How an adapter is taught what was steered.")
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
