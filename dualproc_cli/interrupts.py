"""Ctrl-C while nothing has been done yet: the process ends without a traceback."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Let Ctrl-C inside the block end the process at once and without a traceback.

    It is for imports: nothing has been written yet, and some libraries turn an interrupt into an error of
    their own. A handler that somebody has set is left alone.
    """
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not own or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
