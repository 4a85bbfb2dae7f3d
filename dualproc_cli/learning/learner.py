"""The steps of learning: each depends on the state before it alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dualproc_cli.compiler import CompositeLoss
from dualproc_cli.drawing import draw_seeds, seed_pool
from dualproc_cli.generator import Generator
from dualproc_cli.jitter import MicroBatchRandom
from dualproc_cli.learning.checkpoint import Best, Checkpoint, run_digest
from dualproc_cli.learning.phase import micro_batches, worthy
from dualproc_cli.learning.phases import Phase, PhaseLoss, phases_of
from dualproc_cli.learning.schedule import Schedule
from dualproc_cli.learning.validation import Validator, is_best, settled
from dualproc_cli.metrics import WINDOW, StepMetrics, Validation, recent_loss
from dualproc_cli.spec import ControlSpec

LOOK_EVERY = 25  # steps


class NotFiniteError(Exception):
    """The loss or its gradient is not finite; the weights are still those of the step before."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"step {step}: {what}")


class Learner:
    """Moves what the spec's phases name to minimise ``criterion`` (see `dualproc_cli.learning.phases`).

    Everything random (prompts, seeds, wordings, jitter) is drawn from one random generator, seeded by
    ``learn.seed``: a spec gives the same adapter each time, and so does a run that was resumed.

    Attributes:
        metrics: one entry per step so far.
        phases: the phases of the run.
        best: the state with the lowest recent loss, or of the best validation; None without ``keep_best``, or
            before there is one.
        validations: what the validations found, if ``learn.keep_best`` asks for them.
    """

    def __init__(
        self,
        spec: ControlSpec,
        generator: Generator,
        criterion: CompositeLoss,
        *,
        keep_best: bool = False,
        started_from: str | None = None,
    ) -> None:
        """Prepare the first step.

        Args:
            spec: the control to learn.
            generator: with its adapter, and the steering that ``spec.where`` names.
            criterion: the spec's loss, compiled for the size of the generator's pictures.
            keep_best: whether the state with the lowest recent loss of the last phase is kept.
            started_from: the digest of the adapter's file that ``generator`` was given to start from.
        """
        self.spec, self.generator, self.criterion = spec, generator, criterion
        self.phases = phases_of(spec, generator, criterion)
        self.metrics: list[StepMetrics] = []
        self.best: Best | None = None
        self.validations: list[Validation] = []
        self._keep_best = keep_best
        self._digest = run_digest(spec, started_from)
        self._validates = spec.learn.keep_best == "verdict"
        self._validator: Validator | None = None
        self._rng = torch.Generator().manual_seed(spec.learn.seed)
        self._enter(self.phases[0])

    def _enter(self, phase: Phase) -> None:
        phase.begin()
        self.phase, self._schedule = phase, Schedule(self.spec, phase)
        self._parameters = phase.parameters()
        settings = self.spec.learn.optimizer
        first, second = settings.betas
        decay = settings.weight_decay if phase.name == "weights" else 0.0
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            phase.learning_rate,
            betas=(first, second),
            weight_decay=decay,
            fused=True,  # an adapter is many small tensors: one by one, they took the CPU eight times as long
        )

    @property
    def _steps_of_phase(self) -> int:
        return self._schedule.steps(self._taken)

    @property
    def _taken(self) -> int:
        """The number of steps taken in the present phase, since it last began."""
        taken = self._taken_in_all
        return len(taken) - self.phase.began(taken)

    @property
    def _taken_in_all(self) -> list[StepMetrics]:
        """The steps taken in the present phase, also before it began anew."""
        return [entry for entry in self.metrics if entry.phase == self.phase.name]

    @property
    def begins_anew(self) -> bool:
        """Whether the phase led nowhere, and begins anew in the next step."""
        return self._taken == 0 and bool(self._taken_in_all)

    @property
    def ended_by_answers(self) -> bool:
        """Whether the phase takes fewer steps than it may, since P(answer) held above ``learn.stop_at``."""
        return self._steps_of_phase < self.phase.steps

    @property
    def _since_it_began(self) -> list[StepMetrics]:
        """The steps of the present phase since it last began."""
        return self.metrics[len(self.metrics) - self._taken :]

    @property
    def _phase_is_over(self) -> bool:
        return self._taken >= self._steps_of_phase or settled(self._of_phase)

    @property
    def _of_phase(self) -> list[Validation]:
        before = len(self.metrics) - self._taken
        return [found for found in self.validations if found.step > before]

    @property
    def finished(self) -> bool:
        """Whether the last phase took all its steps, or ended early."""
        return self.phase is self.phases[-1] and self._phase_is_over

    @property
    def steps(self) -> int:
        """The number of steps of the run, if no further phase ends early."""
        later = self.phases[self.phases.index(self.phase) + 1 :]
        return len(self.metrics) - self._taken + self._steps_of_phase + sum(phase.steps for phase in later)

    def step(self) -> StepMetrics:
        """Draw a batch, compute its loss, and move what the phase moves once.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; nothing has moved.
        """
        if self.begins_anew:
            self._begin_anew()
        phase = self.phase
        prompts, seeds = self._choose(*self._draw(phase.batch_size))
        self._optimizer.zero_grad()
        found = self._differentiate(prompts, seeds)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.spec.learn.gradient_clip)

        # A single transfer, because each transfer from the device waits until it has finished computing.
        answers = found.probabilities or self._look()
        probabilities = [values.mean() for values in answers.values()]
        scalars = [found.loss, found.keep, norm, *found.losses.values(), *probabilities]
        values = torch.stack([scalar.float() for scalar in scalars]).tolist()
        asked = len(found.losses)
        entry = StepMetrics(
            step=len(self.metrics) + 1,
            phase=phase.name,
            loss=values[0],
            keep=values[1],
            gradient_norm=values[2],
            losses=dict(zip(found.losses, values[3 : 3 + asked], strict=True)),
            probabilities=dict(zip(answers, values[3 + asked :], strict=True)),
            learning_rate=self._schedule.learning_rate(self._taken),
        )
        for what, value in {
            "loss": entry.loss + entry.keep,
            "norm of the gradient": entry.gradient_norm,
        }.items():
            if not math.isfinite(value):
                raise NotFiniteError(entry.step, f"the {what} is {value}")
        self._remember_best(entry)
        for group in self._optimizer.param_groups:
            group["lr"] = entry.learning_rate
        self._optimizer.step()
        self.metrics.append(entry)
        if self.begins_anew:
            return entry
        self._schedule.saw(self._since_it_began)
        self._validate()
        if self._phase_is_over:
            self._end_phase()
        return entry

    def _look(self) -> dict[str, Tensor]:
        """Ask the VLM now and then, and at the end, in a phase whose loss does not."""
        due = self._taken % LOOK_EVERY == 0 or self._taken == self._steps_of_phase - 1
        return self.phase.look() if due else {}

    def _differentiate(self, prompts: list[str], seeds: list[int]) -> PhaseLoss:
        """Return the loss of a batch, whose gradient is added up micro-batch by micro-batch.

        Losses are means over pictures, so a micro-batch counts by its share of them.
        """
        count, state, found = len(seeds), self._rng.get_state(), []
        for rows in micro_batches(self.spec, self.generator, count):
            rng = MicroBatchRandom.part(state, range(count)[rows], count)
            part = self.phase.loss(prompts[rows], seeds[rows], rng)
            share = len(seeds[rows]) / count
            ((part.loss + part.keep) * share).backward()
            found.append((share, part.detached()))
        self._rng.set_state(rng.get_state())
        return PhaseLoss.of_parts(found)

    def _choose(self, prompts: list[str], seeds: list[int]) -> tuple[list[str], list[int]]:
        """Return those pictures of a batch that are worth learning from."""
        found = [
            self.phase.worth(prompts[rows], seeds[rows])
            for rows in micro_batches(self.spec, self.generator, len(seeds))
        ]
        values = [value for value in found if value is not None]
        if not values:
            return prompts, seeds
        kept = worthy(torch.cat(values)).nonzero()[:, 0].tolist()
        return [prompts[row] for row in kept], [seeds[row] for row in kept]

    def _validate(self) -> None:
        """Every few steps and at the phase's end, judge the state, and remember it if it is the best."""
        learn = self.spec.learn
        due = self._taken % learn.validate_every == 0 or self._taken == self._steps_of_phase
        if not (self._validates and due):
            return
        if self._validator is None:
            self._validator = Validator(self.spec, self.generator, self.criterion)
        with self.phase.drawing():
            found = self._validator.validate(len(self.metrics), self.phase.name)
        self.validations.append(found)
        if is_best(self._of_phase):
            self.best = self._state(-found.score)

    def _begin_anew(self) -> None:
        """Begin the phase anew, because it led nowhere."""
        self.phase.begin_anew()
        self.best = None
        self._enter(self.phase)

    def _end_phase(self) -> None:
        """Restore the phase's best state, if it was validated, and enter the next phase."""
        if self._validates and self.best is not None:
            self.generator.load_adapter_state(self.best.adapter)
            self.generator.load_steering_state(self.best.steering)
            self.best = None
        if self.phase is not self.phases[-1]:
            self._enter(self.phases[self.phases.index(self.phase) + 1])

    def _state(self, loss: float) -> Best:
        adapter, steering = self.generator.adapter_state(), self.generator.steering_state()
        return Best(len(self.metrics), loss, adapter, steering)

    def checkpoint(self) -> Checkpoint:
        """Return the state after the last step."""
        moments = [
            (state["exp_avg"].cpu().clone(), state["exp_avg_sq"].cpu().clone())
            for parameter in self._parameters
            if (state := self._optimizer.state.get(parameter))
        ]
        return Checkpoint(
            spec_digest=self._digest,
            metrics=list(self.metrics),
            validations=list(self.validations),
            rng=self._rng.get_state(),
            phase=self.phase.name,
            adapter=self.generator.adapter_state(),
            steering=self.generator.steering_state(),
            start=self.phase.start,
            words=self.generator.words,
            moments=moments,
            best=self.best,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint``, which must be of the same spec, and of the same words of its prompts.

        Raises:
            ValueError: its tensors or its words are not those of this run.
        """
        if checkpoint.words != self.generator.words:
            raise ValueError("its prompts have other words than those of this run")
        try:
            self._restore(checkpoint)
        except (RuntimeError, KeyError, TypeError, StopIteration) as error:
            raise ValueError("its tensors are not those of this run") from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.metrics, self.best = list(checkpoint.metrics), checkpoint.best
        self.validations = list(checkpoint.validations)
        self._rng.set_state(checkpoint.rng)
        self.generator.load_adapter_state(checkpoint.adapter)
        self.generator.load_steering_state(checkpoint.steering)
        self._enter(next(phase for phase in self.phases if phase.name == checkpoint.phase))
        if self.phase.start.keys() != checkpoint.start.keys():
            raise ValueError("what the phase began with is missing")
        self.phase.start = checkpoint.start
        self._schedule = Schedule(self.spec, self.phase, self._since_it_began)
        if checkpoint.moments:
            shapes = [(parameter.shape, parameter.shape) for parameter in self._parameters]
            if [(mean.shape, square.shape) for mean, square in checkpoint.moments] != shapes:
                raise ValueError("its moments have other shapes than what they belong to")
            state = self._optimizer.state_dict()
            state["state"] = {
                index: {"step": torch.tensor(float(self._taken)), "exp_avg": mean, "exp_avg_sq": square}
                for index, (mean, square) in enumerate(checkpoint.moments)
            }
            self._optimizer.load_state_dict(state)

    def _draw(self, count: int) -> tuple[list[str], list[int]]:
        prompts, pool = self._draw_prompts(count), self.spec.learn.noise_pool
        if pool == "fresh":
            return prompts, draw_seeds(self._rng, count)
        seeds = seed_pool(self.spec.learn.seed, self.phase.steps if pool == "steps" else pool)
        first = self._taken * count
        return prompts, [seeds[(first + i) % len(seeds)] for i in range(count)]

    def _draw_prompts(self, count: int) -> list[str]:
        def some_of(prompts: Sequence[str]) -> list[str]:
            chosen = torch.randint(len(prompts), (count,), generator=self._rng).tolist()
            return [prompts[index] for index in chosen]

        drawn = some_of(self.spec.prompts.train)
        if not self.phase.variety:
            return drawn
        varied = (torch.rand(count, generator=self._rng) < self.spec.learn.variety).tolist()
        return [
            other if vary else one
            for one, other, vary in zip(drawn, some_of(self.phase.variety), varied, strict=True)
        ]

    def _remember_best(self, entry: StepMetrics) -> None:
        """Keep the weights that ``entry`` was measured with if its recent loss is the lowest so far."""
        if (
            not self._keep_best
            or self._validates
            or self.phase is not self.phases[-1]
            or self._taken < WINDOW - 1
        ):
            return
        history = [*self.metrics[1 - WINDOW :], entry]
        loss = recent_loss(history)
        if self.best is None or loss < self.best.loss:
            self.best = self._state(loss)
