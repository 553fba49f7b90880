"""How a task came to the node that is about to run it, told from what every node derives alike."""

from __future__ import annotations

from ..claiming.deal import deal
from ..names import NodeId
from ..pipeline.plan import StepPlan
from ..wire.steps import Roster
from ..work import BlockWork, ChainWork, Origin
from .desk import step_order
from .duty import Duty


def origin_of(run: str, me: NodeId, duty: Duty, plan: StepPlan, roster: Roster, is_borrowed: bool) -> Origin:
    """`is_borrowed`: whether this node asked another one for some of it."""
    if is_borrowed:
        return Origin.STOLEN
    return Origin.DEALT if _home(run, duty, plan, roster) in (None, me) else Origin.AGAIN


def _home(run: str, duty: Duty, plan: StepPlan, roster: Roster) -> NodeId | None:
    """Whom the roster deals a chain or a block of leaves to; None for what is dealt to nobody in particular."""
    match duty.work:
        case ChainWork(partition=partition):
            counts = [chain.partitions for chain in plan.chains if duty.unit.stage in chain.stages]
            order = step_order(run, duty.unit.step, roster.members)
            return deal(range(counts[0]), order, roster.capacity).get(partition) if counts else None
        case BlockWork(first=first):
            if plan.training is None:
                return None
            order = step_order(run, duty.unit.step, roster.trainers)
            return deal(range(plan.training.leaves), order, roster.capacity).get(first)
        case _:
            return None
