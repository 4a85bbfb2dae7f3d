"""Learning a control: the loop, its checkpoints, and staying close to the base generator."""

from dualproc_cli.learning.control import learn
from dualproc_cli.learning.interruption import Interrupted
from dualproc_cli.learning.seeds import held_out_seeds

__all__ = ["Interrupted", "held_out_seeds", "learn"]
