"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file.

A file can be replaced atomically, a folder cannot. So even a power failure leaves a complete checkpoint.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.generator.tensor_file import read_tensor_file
from dualproc_cli.metrics import PhaseName, StepMetrics, Validation
from dualproc_cli.spec import ControlSpec, spec_digest

METADATA_KEY, DIGEST_KEY = "dualproc_checkpoint", "dualproc_digest"
RNG = "rng"
ADAPTER, STEERING, MEAN, SQUARE, BEST = "adapter.", "steering.", "mean.", "square.", "best."
BEST_STEERING, START = "best-steering.", "start."


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spec_digest: str
    metrics: list[StepMetrics]
    validations: list[Validation]
    phase: PhaseName
    words: dict[str, str]
    best: tuple[int, float] | None


def run_digest(spec: ControlSpec, started_from: str | None = None) -> str:
    """Return the digest of a run: of its spec without devices and ``memory``, which may change on resuming.

    Args:
        spec: of the run.
        started_from: the digest of the adapter's file that the run started from.
    """
    found = spec_digest(
        spec.model_copy(
            update={
                "memory": "auto",
                "generator": spec.generator.model_copy(update={"device": None}),
                "vlm": spec.vlm.model_copy(update={"device": None}),
            }
        )
    )
    return f"{found}-{started_from}" if started_from else found


@dataclass(frozen=True)
class Best:
    """The best state so far.

    Attributes:
        step: how many steps were taken.
        loss: the mean of ``loss + keep`` over the last few steps; or, if it was validated, less its score.
        adapter: the adapter's weights by name.
        steering: the steering's weights by name.
    """

    step: int
    loss: float
    adapter: dict[str, Tensor]
    steering: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``len(metrics)`` steps, on the CPU.

    Attributes:
        spec_digest: of the run, see `run_digest`.
        metrics: of every step so far.
        validations: what was found so far.
        rng: state of the run's random numbers, uint8.
        phase: the phase of the next step.
        adapter: the adapter's weights by name.
        steering: the steering's weights by name; empty without steering.
        words: what the steering replaces prompts by.
        start: the adapter's weights when the phase began, where it goes back to them; else empty.
        moments: AdamW's running means of gradient and squared gradient, in the order of what the phase moves;
            empty before its first step.
        best: the best state so far; None if it is not kept.
    """

    spec_digest: str
    metrics: list[StepMetrics]
    validations: list[Validation]
    rng: Tensor
    phase: PhaseName
    adapter: dict[str, Tensor]
    steering: dict[str, Tensor]
    words: dict[str, str]
    start: dict[str, Tensor]
    moments: list[tuple[Tensor, Tensor]]
    best: Best | None = None

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return len(self.metrics)

    def write(self, path: Path) -> None:
        """Write the checkpoint atomically: at any time ``path`` holds the previous one or this one.

        Raises:
            OSError: the disk is full or the folder cannot be written to.
        """
        best = (self.best.step, self.best.loss) if self.best else None
        header = _Header(
            spec_digest=self.spec_digest,
            metrics=self.metrics,
            validations=self.validations,
            phase=self.phase,
            words=self.words,
            best=best,
        )
        tensors = {RNG: self.rng}
        tensors |= {ADAPTER + name: tensor for name, tensor in self.adapter.items()}
        tensors |= {STEERING + name: tensor for name, tensor in self.steering.items()}
        tensors |= {START + name: tensor for name, tensor in self.start.items()}
        for index, (mean, square) in enumerate(self.moments):
            tensors |= {f"{MEAN}{index}": mean, f"{SQUARE}{index}": square}
        if self.best:
            tensors |= {BEST + name: tensor for name, tensor in self.best.adapter.items()}
            tensors |= {BEST_STEERING + name: tensor for name, tensor in self.best.steering.items()}
        text = header.model_dump_json()
        write_atomically(path, save(tensors, {METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}))

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises:
            UserError: the file does not exist or is damaged.
        """
        try:
            tensors, metadata = read_tensor_file(path)
            if _digest(metadata[METADATA_KEY], tensors) != metadata[DIGEST_KEY]:
                raise ValueError("its digest is another")
            header = _Header.model_validate_json(metadata[METADATA_KEY])
            count = sum(key.startswith(MEAN) for key in tensors)
            best = None
            if header.best:
                best = Best(*header.best, _named(tensors, BEST), _named(tensors, BEST_STEERING))
            return cls(
                spec_digest=header.spec_digest,
                metrics=header.metrics,
                validations=header.validations,
                rng=tensors[RNG],
                phase=header.phase,
                adapter=_named(tensors, ADAPTER),
                steering=_named(tensors, STEERING),
                words=header.words,
                start=_named(tensors, START),
                moments=[(tensors[f"{MEAN}{index}"], tensors[f"{SQUARE}{index}"]) for index in range(count)],
                best=best,
            )
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no checkpoint to resume from; leave --resume out to start anew"
            ) from error
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: a damaged checkpoint; pass --overwrite instead of --resume to start anew"
            ) from error


def _digest(header: str, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of all that a checkpoint holds: a flipped bit must not be learned on."""
    found = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
