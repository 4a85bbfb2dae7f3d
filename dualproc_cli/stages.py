"""What a run is doing now: announced where it is done, shown by whoever wants to.

Each announcement is a message of the logger ``dualproc_cli.stages`` at level INFO; the command line shows the
last one on standard error. Imports no torch.
"""

import logging

logger = logging.getLogger(__name__)


def stage(doing: str) -> None:
    """Announce what is being done from now on, such as ``loading miniature``; nothing, if it is empty."""
    logger.info("%s", doing)
