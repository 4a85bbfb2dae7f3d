"""Watching a case: whether it ends, what it prints, which files it touches, and whether it runs anything."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.errors import RunFailed, UserError

LIMIT = 60  # seconds that a case may take, on a machine that has other work too
EXECUTIONS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn"),
    "pickle.find_class",
)
CHANGES = (
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod"),
    "os.truncate",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
KINDS = ("traceback", "hang", "outside", "control character", "execution", "unnoticed change")


class Hang(BaseException):
    """A case took longer than `LIMIT`; no handler of errors catches it."""


class Watch:
    """Sees what happens in this process while a case runs, by Python's audit events.

    Attributes:
        found: what was found in the present case, by kind.
    """

    def __init__(self, secret: Path) -> None:
        """Prepare to watch; ``secret`` is a file that no case may open."""
        self._secret, self._folder, self._active = str(secret), "", False
        self.found: list[tuple[str, str]] = []
        sys.addaudithook(self._see)

    @contextmanager
    def case(self, folder: Path) -> Iterator[None]:
        """Watch the block, which may write to ``folder`` alone."""
        self.found, self._folder, self._active = [], os.path.realpath(folder), True
        previous = signal.signal(signal.SIGALRM, self._too_long)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            yield
        except Hang:
            self.found.append(("hang", f"longer than {LIMIT} s"))
        except Exception as error:
            self.found.append(("traceback", f"{type(error).__name__}: {error}"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self._active = False

    def command(self, *arguments: str) -> int:
        """Run a command, check what it prints, and return its exit status."""
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self._check_text(result.output)
        return result.exit_code

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that a command calls, and return its result; None if it refuses its arguments."""
        try:
            return function(*arguments)
        except (UserError, RunFailed):
            return None

    def _check_text(self, text: str) -> None:
        if bad := {c for c in text if not c.isprintable() and c != "\n"}:
            self.found.append(("control character", repr(sorted(bad))))

    def _too_long(self, *arguments: Any) -> None:
        raise Hang

    def _see(self, event: str, arguments: tuple) -> None:
        if not self._active:
            return
        if event in EXECUTIONS:
            self.found.append(("execution", f"{event} {arguments}"[:200]))
        elif event == "exec" and str(arguments[0].co_filename).startswith(self._folder):
            self.found.append(("execution", arguments[0].co_filename))
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path == self._secret or (isinstance(arguments[2], int) and arguments[2] & WRITING):
                self._check_path(event, path)
        elif event in CHANGES:
            for path in arguments[event == "os.symlink" : 2]:  # what a link leads to is not changed
                if isinstance(path, str | bytes):
                    parent, name = os.path.split(os.fsdecode(path))
                    self._check_path(event, os.path.join(os.path.realpath(parent), name))

    def _check_path(self, event: str, path: str) -> None:
        inside = path == self._folder or path.startswith(self._folder + os.sep)
        if not inside and path != os.devnull:
            self.found.append(("outside", f"{event} {path}"))
