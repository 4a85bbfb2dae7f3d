"""The progress of a run, shown in the terminal."""

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from dualproc_cli.metrics import StepMetrics, recent_probabilities
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Console, Text

LINE_EVERY = 10  # steps between lines where there is no terminal


class LearningProgress:
    """Shows the steps as they come: live on a terminal, otherwise as a line every 10 steps.

    Usage::

        with LearningProgress(console, steps=100, done=0) as progress:
            progress.show(metrics, steps=100)      # after each step, all metrics so far
    """

    def __init__(self, console: Console, steps: int, done: int) -> None:
        """Prepare to show ``steps`` steps, ``done`` of which were taken before."""
        self._console, self._steps, self._first = console, steps, done
        self._started = time.monotonic()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "LearningProgress":
        stage("")  # its own display begins
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, metrics: Sequence[StepMetrics], steps: int) -> None:
        """Show the last of ``metrics``, of ``steps`` in all; P(answer) is the mean over the last few."""
        self._steps = steps
        last, step = metrics[-1], metrics[-1].step
        if self._live:
            self._live.update(self._picture(metrics), refresh=True)
        elif step == self._first + 1 or step % LINE_EVERY == 0 or step == self._steps:
            answers = [f"P({name}) {value:.2f}" for name, value in recent_probabilities(metrics).items()]
            self._console.print(
                "  ".join(
                    (f"{last.phase} {step}/{self._steps}", self._losses(last), *answers, self._pace(step))
                ),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def say(self, message: str) -> None:
        """Print a line, above the live display where there is one."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _picture(self, metrics: Sequence[StepMetrics]) -> RenderableType:
        last = metrics[-1]
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._steps, completed=last.step, width=30)
        head.add_row(f"{last.phase} {last.step}/{self._steps}", bar, self._pace(last.step))
        answers = Table.grid(padding=(0, 2))
        for name, value in recent_probabilities(metrics).items():
            answers.add_row(
                Text(f"P({name})"), f"{value:.2f}", ProgressBar(total=1, completed=value, width=30)
            )
        mean = Text(f"{self._losses(last)}  (P(answer): over the last steps that asked)", style="dim")
        return Group(head, answers, mean)

    def _losses(self, last: StepMetrics) -> str:
        return f"loss {last.loss:.3f}  keep {last.keep:.3f}"

    def _pace(self, step: int) -> str:
        pace = (time.monotonic() - self._started) / (step - self._first)
        left = round(pace * (self._steps - step))
        return f"{pace:.2f} s/step  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
