"""How much memory a control will take to learn, and what can be done to need less."""

from dualproc_cli.memory.ladder import RUNGS, Choice, choose, deeper, second_device
from dualproc_cli.memory.predict import GIB, Estimate, predict

__all__ = ["GIB", "RUNGS", "Choice", "Estimate", "choose", "deeper", "predict", "second_device"]
