"""A duty: one unit of work that is due here, its place in the queue for a slot, and whose it is if not this node's.

A unit is due here if it is unfinished and either dealt to this node (again, after a death), or an orphan: its home
lives but shows no claim in this step for a while. Deriving it twice, or on two nodes, wastes work and mixes nothing:
results are joined by content id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from ..membership.timing import answer_s
from ..names import Block, NodeId, Once, Partition, ShardRef, Slice, TaskKey
from ..rendezvous import ranked
from ..shards.holdings import Range
from ..work import Work
from .patience import Wait
from .view import StepView, able_home

# Order in a slot: what other nodes wait for first, what nobody waits for last. A partition of which a call is done goes
# on behind those of which none is: the device changes its models once, and what was sampled is copied meanwhile. What
# is ahead of the node's step comes when nothing of that is left.
SLICE, SUM, BLOCK, CHAIN, CHAIN_REST, EVALUATE, AHEAD, AHEAD_REST, SAVE = range(9)
ORPHAN = 10  # added to the rank of another node's unit


def order_of(rank: int, unit: TaskKey) -> tuple[int, int, str, int]:
    """A unit's place among what is due: by rank, step and stage, parts in numerical order, p2 before p10."""
    match unit.part:
        case Partition(index=first) | Block(first=first) | Slice(first=first):
            return rank, unit.step, unit.stage, first
        case Once():
            return rank, unit.step, unit.stage, 0


@dataclass(frozen=True, slots=True)
class Duty:
    """A unit of work that is due here, and the shards it needs; `reads` are the record's inputs so far."""

    rank: int
    unit: TaskKey
    work: Work
    needs: tuple[tuple[ShardRef, Range | None], ...]
    reads: tuple[str, ...]
    order: tuple[int, int, str, int] = field(init=False, compare=False, repr=False)  # in which slots take them

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", order_of(self.rank, self.unit))


ANSWER_AFTER = 0.1  # answer times in which a replica that was asked for its books has answered


def is_orphan(view: StepView, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]) -> bool:
    """Whether a unit of a living but silent home may be run by anyone able: after a delay that differs from node to
    node, in which it asked a replica for its books, since claims and records are told to those alone."""
    if home in view.at_work or not view.is_idle or view.me not in able:  # who is at work will come to it
        return False
    silent_s, asked_s = view.step.patience.lasts(view.now, Wait.HOME, unit), view.now - view.step.polled_at
    if silent_s <= view.suspicion_s or not ANSWER_AFTER * answer_s(view.suspicion_s) <= asked_s < silent_s:
        return False
    order = ranked(str(unit), tuple(sorted(able)))
    return silent_s > view.suspicion_s * (1 + order.index(view.me) / len(order))


@dataclass(slots=True)
class Due:
    """What is due here of some units, and of those of others whose homes show no claim, or are not waited for."""

    here: list[Duty] = field(default_factory=list)
    silent: list[TaskKey] = field(default_factory=list)
    busy: list[TaskKey] = field(default_factory=list)

    def rank(
        self, view: StepView, rank: int, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]
    ) -> int | None:
        """The unit's rank if it is due here, else None; noted where somebody else is to come to it."""
        if view.is_taken(unit):
            self.busy.append(unit)
            return None
        if unit in view.loans.borrowed:
            return rank
        home = able_home(unit, home, view.failures.nodes(unit), able)
        return rank if home == view.me else self.orphan_rank(view, rank, unit, home, able)

    def orphan_rank(
        self, view: StepView, rank: int, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]
    ) -> int | None:
        """The same of a unit that has another home and is not taken."""
        if home in view.at_work:
            self.busy.append(unit)
        elif view.is_idle and view.me in able:
            self.silent.append(unit)
        return rank + ORPHAN if is_orphan(view, unit, home, able) else None

    def add(self, other: Due) -> None:
        self.here += other.here
        self.silent += other.silent
        self.busy += other.busy


def watch_homes(view: StepView, due: Due, are_many: bool = False) -> None:
    """Start the patience with homes that are silent. End it where they are at work and, as far as an idle node looks at
    all, with those that are a unit's home no longer: whoever comes to be it is waited for from then on."""
    silent, busy = dict.fromkeys(due.silent), set(due.busy)
    begins_anew = are_many and not view.is_idle  # who works hears of no claims there: its patience begins when it idles
    for unit in view.step.patience.units(Wait.HOME):
        if unit in busy or begins_anew or (view.is_idle and unit not in silent):
            view.step.patience.end(Wait.HOME, unit)
    for unit in silent:
        view.step.patience.start(view.now, Wait.HOME, unit)


def in_order(duties: Iterable[Duty]) -> list[Duty]:
    """As slots should take them."""
    return sorted(duties, key=attrgetter("order"))
