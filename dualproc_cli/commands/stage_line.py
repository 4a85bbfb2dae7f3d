"""Showing on a terminal what a command is doing now."""

import logging
import sys

from rich.live import Live
from rich.spinner import Spinner

from dualproc_cli import stages
from dualproc_cli.printable import printable
from dualproc_cli.terminal import Console, Text


class StageLine(logging.Handler):
    """One line at the bottom of the terminal with the last stage; nothing where there is no terminal.

    It is written to standard error. A stage without a text takes the line away.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._console = Console(stderr=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Show the stage of ``record``."""
        text = printable(record.getMessage())
        if not text or not self._console.is_terminal:
            self.stop()
            return
        self._spinner.update(text=Text(text, overflow="ellipsis", no_wrap=True))
        if self._live is None:
            # If standard output is not the terminal, it must not be sent there.
            redirect = sys.stdout.isatty()
            self._live = Live(self._spinner, console=self._console, transient=True, redirect_stdout=redirect)
            self._live.start(refresh=True)

    def stop(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def show_stages(quiet: bool) -> StageLine:
    """Show the stages of this process from now on, unless ``quiet``, and return what shows them."""
    logger = logging.getLogger(stages.__name__)
    for handler in [one for one in logger.handlers if isinstance(one, StageLine)]:  # of a command before
        handler.stop()
        logger.removeHandler(handler)
    line = StageLine()
    logger.addHandler(line)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    return line
