"""How much memory a control will take to learn, and what can be done to need less."""

from dualproc_cli.memory.ladder import Choice, choose, deeper, second_device
from dualproc_cli.memory.predict import Estimate, predict

__all__ = ["Choice", "Estimate", "choose", "deeper", "predict", "second_device"]
