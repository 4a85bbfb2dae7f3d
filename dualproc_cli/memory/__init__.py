"""How much memory a run takes, and the strategies that reduce it.

Usage::

    plan = plan_learning(loaded, device)         # reason, strategies, estimate, budget
    generator, vlm = plan.load_generator(), plan.load_vlm()
"""

from dualproc_cli.memory.estimate import (
    Estimate,
    estimate_drawing,
    estimate_evaluation,
    estimate_learning,
    readable,
)
from dualproc_cli.memory.plan import MemoryPlan, plan_drawing, plan_evaluation, plan_learning

__all__ = [
    "Estimate",
    "MemoryPlan",
    "estimate_drawing",
    "estimate_evaluation",
    "estimate_learning",
    "plan_drawing",
    "plan_evaluation",
    "plan_learning",
    "readable",
]
