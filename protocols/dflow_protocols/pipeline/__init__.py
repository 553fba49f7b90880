"""Pipelines: the graph that a user writes, and the steps that every node derives from it.

Read spec.py first (what a pipeline is), then plan.py (what a step consists of). signatures.py and layout.py hold the
format as tables; validate.py turns what was written into what can run; problem.py says what is wrong with it. entries/
reads data files.
"""

from .grammar.problem import Problem, SpecError
from .plan import Chain, StepPlan, Training, partition_groups, plan, tasks
from .spec import Pipeline, Stage

__all__ = [
    "Chain",
    "Pipeline",
    "Problem",
    "SpecError",
    "Stage",
    "StepPlan",
    "Training",
    "partition_groups",
    "plan",
    "tasks",
]
