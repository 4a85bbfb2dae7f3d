"""Ctrl-C and SIGTERM stop a run after its current step."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from dualproc_cli.errors import RunFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(RunFailed):
    """The user stopped a run, which saved its state. Exit status 130, as shells report Ctrl-C."""

    exit_status = 130


class Interruption:
    """Context manager in which the first SIGINT or SIGTERM only sets `requested`; a second one acts as usual.

    It does nothing outside the main thread, because Python delivers signals to the main thread only.

    Attributes:
        requested: whether the user wants the run to stop.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        """Prepare to call ``notify`` at the first signal."""
        self.requested = False
        self._notify = notify
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        self._notify()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
