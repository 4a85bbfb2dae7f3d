"""How much memory a control will take to learn, and what can be done to need less."""

from dualproc_cli.memory.estimate import Estimate, predict
from dualproc_cli.memory.load import load_models, load_thrifty_generator
from dualproc_cli.memory.plan import Choice, choose, choose_to_draw, deeper
from dualproc_cli.memory.strategies import with_rungs

__all__ = [
    "Choice",
    "Estimate",
    "choose",
    "choose_to_draw",
    "deeper",
    "load_models",
    "load_thrifty_generator",
    "predict",
    "with_rungs",
]
