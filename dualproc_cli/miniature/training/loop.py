"""The training loop of all networks: seeded, logged to a file, resumable bit for bit."""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dualproc_cli.files import write_atomically
from dualproc_cli.learning.interruption import Interruption

log = logging.getLogger("dualproc.miniature")

WARM_UP = 200  # steps
COOL_DOWN = 0.4  # the last share of the steps, in which the learning rate falls linearly to zero
AVERAGE_SPAN = 400  # steps that the exponential moving average of the weights spans
LOG_EVERY = 100  # steps

T = TypeVar("T")


def seeded(seed: int) -> torch.Generator:
    """Return a random number generator on the training's device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def half_precision() -> torch.autocast:
    """Return a context in which matrix products are in bfloat16, ten times as fast on CPUs with AMX.

    They stay in float32 on CPUs without AVX-512, which have no instructions for them.
    """
    device = torch.get_default_device().type
    knows_half = device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.autocast(device, torch.bfloat16, enabled=knows_half)


class Chunks(Generic[T]):
    """Training data, made one chunk at a time from the seed and the chunk's number."""

    def __init__(self, make: Callable[[torch.Generator], T], seed: int, samples: int) -> None:
        """Prepare to make chunks.

        Args:
            make: makes a chunk from random numbers.
            seed: of the training.
            samples: how many of the training's samples are drawn from one chunk.
        """
        self.make, self.seed, self.samples = make, seed, samples
        self._current: tuple[int, T] | None = None

    def at(self, sample: int) -> T:
        """Return the chunk from which the given sample of the training is drawn."""
        number = sample // self.samples
        if self._current is None or self._current[0] != number:
            self._current = None  # free it before the next is made
            self._current = number, self.make(seeded(hash((self.seed, number)) % 2**63))
        return self._current[1]


@dataclass
class Task:
    """What is trained, and how one step's loss is computed.

    Attributes:
        name: the training's name in the log and of its checkpoint.
        modules: the networks; their parameters that require a gradient are trained.
        loss: ``loss(rng, batch_size, step)`` returns named terms, whose sum is the loss.
        samples: how many samples to train on in all.
        batch_size: samples a step.
        learning_rate: the highest one, between warm-up and cool-down.
        moved_by_muon: whether Muon moves the parameter of that name; AdamW moves the others.
        warm_start: whether the networks start from weights that were exported before.
    """

    name: str
    modules: nn.Module
    loss: Callable[[torch.Generator, int, int], dict[str, Tensor]]
    samples: int
    batch_size: int
    learning_rate: float
    moved_by_muon: Callable[[str, nn.Parameter], bool] = field(default=lambda name, parameter: False)
    warm_start: bool = False


class Training:
    """The state of one training.

    Attributes:
        task: what is trained.
        folder: where checkpoints are written.
        seed: of the random numbers; `resume` restores that of the checkpoint.
        parameters: the trained parameters.
        average: their exponential moving averages, in the same order.
        optimizers: AdamW and, if it moves any parameter, Muon.
        rng: the random numbers of the steps.
        step: how many steps are done.
        minutes: how long they took.
        limit: minutes after which the training should end; it is shortened by its speed so far.
    """

    def __init__(self, task: Task, folder: Path, seed: int) -> None:
        self.task, self.folder, self.seed = task, folder, seed
        named = [(name, p) for name, p in task.modules.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.average = [p.detach().clone() for p in self.parameters]
        hidden = [p for name, p in named if task.moved_by_muon(name, p)]
        rest = [p for name, p in named if not task.moved_by_muon(name, p)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, task.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        ]
        if hidden:
            muon = torch.optim.Muon(
                hidden, task.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            )
            self.optimizers.append(muon)
        self.rng = seeded(seed)
        self.step, self.minutes = 0, 0.0
        self.limit = math.inf

    @property
    def steps(self) -> int:
        """The number of steps of the training: all, or those for which there is time at its speed so far."""
        samples = self.task.samples
        if self.step >= LOG_EVERY and math.isfinite(self.limit):  # the first steps are slower
            samples = int(min(samples, self.samples_seen * self.limit / self.minutes))
        return samples // self.task.batch_size

    def run(self, checkpoint_every: int = 500) -> None:
        """Train to the end or until interrupted, and save a checkpoint in either case.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the current step was finished first.
        """
        totals: dict[str, list[Tensor]] = defaultdict(list)
        with Interruption(lambda: log.info("%s: stopping after this step", self.task.name)) as stop:
            while self.step < self.steps and not stop.requested:
                started = time.monotonic()
                for name, value in self.train_step().items():
                    totals[name].append(value.detach())
                self.minutes += (time.monotonic() - started) / 60
                if self.step % LOG_EVERY == 0:
                    self._log(totals)
                    totals.clear()
                if self.step % checkpoint_every == 0:
                    self.save()
            self.save()
        if stop.requested:
            raise KeyboardInterrupt

    def _log(self, terms: dict[str, list[Tensor]]) -> None:
        means = " ".join(f"{name} {float(torch.stack(values).mean()):.4f}" for name, values in terms.items())
        log.info("%s: %d samples, %.1f min: %s", self.task.name, self.samples_seen, self.minutes, means)

    def train_step(self) -> dict[str, Tensor]:
        """Update the weights and their average once; return the terms of the loss before it."""
        rate = self.task.learning_rate * _schedule(self.step, self.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        terms = self.task.loss(self.rng, self.task.batch_size, self.step)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        weight = max(1 / (self.step + 1), 1 / AVERAGE_SPAN)
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], weight)
        return terms

    @property
    def samples_seen(self) -> int:
        """The number of samples that were trained on so far."""
        return self.step * self.task.batch_size

    @torch.no_grad()
    def use_average(self) -> None:
        """Copy the averaged weights into the modules, for evaluation and export."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)

    def save(self) -> None:
        """Write the whole state to `checkpoint`; if writing fails, the previous one stays."""
        tensors = {f"module.{name}": value for name, value in self.task.modules.state_dict().items()}
        tensors |= {f"average.{index}": value for index, value in enumerate(self.average)}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    tensors[f"optimizer.{number}.{index}.{key}"] = torch.as_tensor(value)
        tensors["rng"] = self.rng.get_state()
        header = {"step": self.step, "minutes": self.minutes, "seed": self.seed}
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoint, save(tensors, {"state": json.dumps(header)}))

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint."""
        return self.folder / f"{self.task.name}.safetensors"

    def resume(self) -> None:
        """Restore the state from `checkpoint`, if that exists."""
        if not self.checkpoint.exists():
            return
        with safe_open(self.checkpoint, "pt") as file:
            header = json.loads(file.metadata()["state"])
        tensors = load_file(self.checkpoint)
        self.task.modules.load_state_dict(_with_prefix(tensors, "module."))
        for position, average in enumerate(self.average):
            average.copy_(tensors[f"average.{position}"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _with_prefix(tensors, f"optimizer.{number}.").items():
                index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.rng.set_state(tensors["rng"])
        self.step, self.minutes, self.seed = header["step"], header["minutes"], header["seed"]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, named by what follows it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _schedule(step: int, steps: int) -> float:
    """Return the share in [0, 1] of the learning rate: linear warm-up, constant, linear cool-down."""
    warm = min(1.0, (step + 1) / WARM_UP)
    left = (steps - step) / max(COOL_DOWN * steps, 1)
    return warm * min(1.0, left)
