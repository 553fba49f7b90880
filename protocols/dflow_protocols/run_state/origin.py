"""How a task came to the node that is about to run it, told from what every node derives alike."""

from __future__ import annotations

from ..claiming.deal import deal
from ..names import NodeId, Partition, TaskKey
from ..pipeline.plan import StepPlan
from ..steps.duty import Duty
from ..steps.view import deal_rounds, step_order
from ..wire.steps import Roster
from ..work import BlockWork, ChainWork, Origin


def origin_of(run: str, me: NodeId, duty: Duty, plan: StepPlan, roster: Roster, is_borrowed: bool) -> Origin:
    """`is_borrowed`: whether this node asked another one for some of it."""
    if is_borrowed:
        return Origin.STOLEN
    if not isinstance(duty.work, ChainWork | BlockWork):  # what is dealt to nobody in particular
        return Origin.DEALT
    return Origin.DEALT if home_of(run, duty.unit, plan, roster) in (None, me) else Origin.AGAIN


def home_of(run: str, task: TaskKey, plan: StepPlan, roster: Roster) -> NodeId | None:
    """Whom the roster deals a partition, a leaf or a block (by its first leaf) to; None for what is dealt otherwise."""
    training = plan.training_of(task.stage)
    if task.leaves and training is not None:
        order = step_order(run, plan.first, roster.trainers)
        return deal(range(training.leaves), order, roster.capacity).get(task.leaves[0])
    chains = [chain for chain in plan.chains if task.stage in chain.stages]
    if not chains or not isinstance(task.part, Partition):
        return None
    order = step_order(run, plan.first, roster.members)
    return deal_rounds(chains[0], order, roster.capacity).get(task.part.index)
