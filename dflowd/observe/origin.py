"""Whether a task runs where it was dealt to, told from what every node derives alike."""

from __future__ import annotations

from dflow_protocols.claiming.deal import deal
from dflow_protocols.names import NodeId, RunId, TaskKey
from dflow_protocols.pipeline import StepPlan
from dflow_protocols.steps.duties import step_order
from dflow_protocols.wire.steps import Roster
from dflow_protocols.work import BlockWork, ChainWork, Work


def home_of(run: RunId, task: TaskKey, work: Work, plan: StepPlan, roster: Roster) -> NodeId | None:
    """Whom the roster deals a chain or a block of leaves to; None for what is dealt to nobody in particular."""
    match work:
        case ChainWork(partition=partition):
            counts = [chain.partitions for chain in plan.chains if task.stage in chain.stages]
            order = step_order(run, task.step, roster.members)
            return deal(range(counts[0]), order, roster.capacity).get(partition) if counts else None
        case BlockWork(first=first):
            if plan.training is None:
                return None
            order = step_order(run, task.step, roster.trainers)
            return deal(range(plan.training.leaves), order, roster.capacity).get(first)
        case _:
            return None
