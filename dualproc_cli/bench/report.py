"""The results of a bench, as dataclasses; `BenchReport.as_json` is what ``dualproc bench --json`` prints."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PartCost:
    """The cost of one part of a step, see `dualproc_cli.bench.parts.step_in_parts`.

    Attributes:
        seconds: how long it takes.
        flops: floating-point operations of its matrix products, convolutions and attention.
        share_of_ceiling: its FLOPs a second, as a fraction of the device's rate of matrix products.
    """

    seconds: float
    flops: float
    share_of_ceiling: float


@dataclass(frozen=True)
class StepCost:
    """The cost of a step of learning.

    Attributes:
        seconds: how long it takes.
        pictures_per_second: pictures of its batch over these seconds.
        flops: floating-point operations of its matrix products, convolutions and attention.
        share_of_ceiling: its FLOPs a second, as a fraction of the device's rate of matrix products.
        peak_bytes: the most memory in use at once, see `dualproc_cli.bench.counters.peak_bytes`.
        parts: the cost of each part by name, the longest first.
    """

    seconds: float
    pictures_per_second: float
    flops: float
    share_of_ceiling: float
    peak_bytes: int
    parts: dict[str, PartCost]


@dataclass(frozen=True)
class VlmCost:
    """The cost of the VLM alone: of answers about pictures of noise, and of their gradient.

    Attributes:
        shared_seconds: with the shared prefix.
        full_seconds: with one full forward per question.
        ratio: full over shared.
        difference: the largest difference of a question's loss between the two, in nats.
        gradient_difference: the largest difference of the gradient, relative to its largest entry.
    """

    shared_seconds: float
    full_seconds: float
    ratio: float
    difference: float
    gradient_difference: float


@dataclass(frozen=True)
class StepComparison:
    """A step with the shared prefix beside the same step with one full VLM forward per question.

    Attributes:
        questions: how many are asked.
        mode: names of the forward modes in use with the shared prefix, see `AnswerScorer`.
        shared: the step with the shared prefix.
        full: the step with full forwards.
        ratio: seconds of full over shared.
        vlm: the VLM's part alone.
        predicted_bytes: the memory that the step was predicted to take; None without a prediction.
    """

    questions: int
    mode: str
    shared: StepCost
    full: StepCost
    ratio: float
    vlm: VlmCost
    predicted_bytes: int | None = None


@dataclass(frozen=True)
class CompilingCost:
    """What compiling the denoiser's blocks costs and saves.

    Attributes:
        compiling_seconds: of the first step, which compiles.
        seconds: of a step after it.
        plain_seconds: of a step without compiled blocks.
        pays_after: how many steps make up for compiling; None where a compiled step is not faster.
    """

    compiling_seconds: float
    seconds: float
    plain_seconds: float
    pays_after: int | None


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and on what.

    Attributes:
        generator: the model.
        vlm: the model.
        random_weights: those of these models that were built with random weights.
        device: where they ran.
        threads: CPU threads.
        dtypes: precisions of generator and VLM.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        denoising_steps: per picture.
        batch_size: pictures per step.
        rounds: steps measured of each kind; the figures are medians.
        matmul_flops_per_second: what a large matrix product reaches on the device.
        memory: the memory strategies in use.
        compile: cost of compiling; None unless the spec sets ``generator.compile``.
        rows: one for each number of questions.
    """

    generator: str
    vlm: str
    random_weights: list[str]
    device: str
    threads: int
    dtypes: list[str]
    width: int
    height: int
    denoising_steps: int
    batch_size: int
    rounds: int
    matmul_flops_per_second: float
    memory: list[str]
    compile: CompilingCost | None
    rows: list[StepComparison]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data that `json.dumps` takes."""
        return asdict(self)
