"""A run: steps until the learner has finished or was stopped, with checkpoints on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dualproc_cli.device import is_out_of_memory
from dualproc_cli.errors import RunFailed
from dualproc_cli.learning.interruption import Interruption
from dualproc_cli.learning.learner import Learner, NotFiniteError
from dualproc_cli.learning.progress import LearningProgress
from dualproc_cli.memory import MemoryPlan


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        reason: ``steps``: all were taken; ``stop_at``: P(answer) held above it; ``interrupted``: by the user;
            ``not-finite``: the loss or its gradient was infinite or NaN; ``out-of-memory``.
        message: one line for the user.
    """

    reason: Literal["steps", "stop_at", "interrupted", "not-finite", "out-of-memory"]
    message: str

    @property
    def early(self) -> bool:
        """Whether the run ended before the control was learned."""
        return self.reason not in ("steps", "stop_at")


def run(
    learner: Learner, checkpoint: Path, progress: LearningProgress, smaller: MemoryPlan | None = None
) -> Ending:
    """Step until ``learner`` has finished, with a checkpoint every ``learn.checkpoint_every`` steps.

    If memory runs out, the message suggests ``smaller``, the next memory plan.

    Raises:
        RunFailed: a checkpoint could not be written; the one before is intact.
    """
    learn = learner.spec.learn
    notify = "stopping after this step (press Ctrl-C again to stop at once, without saving)"
    saved = len(learner.metrics)  # where it resumes; 0: nothing is saved yet
    with Interruption(lambda: progress.say(notify)) as interruption:
        while not learner.finished and not interruption.requested:
            steps, phase = learner.steps, learner.phase.name
            try:
                step = learner.step().step
            except NotFiniteError as error:
                message = f"{error}; {_last_good(checkpoint, saved)}; lower {learner.phase.rate_key}"
                return Ending("not-finite", message)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                message = f"out of memory at step {len(learner.metrics) + 1}; {_last_good(checkpoint, saved)}"
                return Ending("out-of-memory", f"{message}; {_advice(smaller)}")
            progress.show(learner.metrics, learner.steps)
            if news := _news(learner, phase, steps):
                progress.say(f"{phase}: {news}")
            if step % learn.checkpoint_every == 0 or learner.finished or interruption.requested:
                saved = _save(learner, checkpoint, saved)
    taken = len(learner.metrics)
    if learner.finished and learner.ended_by_answers:
        return Ending(
            "stop_at", f"step {taken}: P(answer) holds above {learn.stop_at}, as learn.stop_at asks"
        )
    if learner.finished:
        ended = "all" if taken == learner.steps else "validation ended the last phase:"
        return Ending("steps", f"{ended} {taken} steps taken")
    where = f"saved in {checkpoint}; go on with --resume" if saved else "nothing was learned yet"
    return Ending("interrupted", f"interrupted after step {taken} of {learner.steps}: {where}")


def _news(learner: Learner, phase: str, steps: int) -> str | None:
    """Return what the last step of ``phase`` changed about how long it takes; there were ``steps`` before."""
    if learner.begins_anew:
        return "led nowhere; it begins anew at other words, which are compared first"
    if learner.phase.name != phase or learner.steps == steps:
        return None
    if learner.steps > steps:
        return f"P(answer) is low; it takes up to {learner.steps - steps} steps more"
    return f"P(answer) is high; it takes {steps - learner.steps} steps less"


def _save(learner: Learner, path: Path, saved: int) -> int:
    """Replace the checkpoint of step ``saved`` by the present one, and return its step."""
    checkpoint = learner.checkpoint()
    try:
        checkpoint.write(path)
    except OSError as error:
        raise RunFailed(
            f"{path}: step {checkpoint.step} could not be saved ({error.strerror or error}); "
            f"{_last_good(path, saved)}; make room and {'go on with --resume' if saved else 'start again'}"
        ) from error
    return checkpoint.step


def _advice(smaller: MemoryPlan | None) -> str:
    if smaller is None:
        return "lower learn.batch_size, or the size of the picture"
    return f"go on with --resume --set 'memory=[{', '.join(smaller.names)}]'"


def _last_good(path: Path, saved: int) -> str:
    return f"the last good checkpoint is {path}, of step {saved}" if saved else "there is no checkpoint yet"
