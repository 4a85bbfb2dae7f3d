"""Loading models without the progress bars and warnings that the libraries print for their developers."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

RETRIES = "huggingface_hub.utils._http"  # the logger that tells of every retry


@contextmanager
def quiet_libraries(chatty: Sequence[str] = ()) -> Iterator[None]:
    """Inside the block, show no bars of the hub, transformers and diffusers, and only errors of some loggers.

    Afterwards everything is as the process had set it.

    Args:
        chatty: names of loggers, in addition to the hub's retries.
    """
    diffusers_logging = sys.modules.get("diffusers.utils.logging")  # where it is not imported, it is quiet
    bars = [log for log in (transformers_logging, diffusers_logging) if log and log.is_progress_bar_enabled()]
    hub_shows = not are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in (RETRIES, *chatty)]
    levels = [logger.level for logger in loggers]
    for log in bars:
        log.disable_progress_bar()
    disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log in bars:
            log.enable_progress_bar()
        if hub_shows:
            enable_progress_bars()
        else:
            disable_progress_bars()  # transformers has shown them together with its own
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
