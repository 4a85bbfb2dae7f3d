"""Learning a control: the loop, its checkpoints, and staying close to the base generator."""

from dualproc_cli.learning.control import learn
from dualproc_cli.learning.interruption import Interrupted

__all__ = ["Interrupted", "learn"]
