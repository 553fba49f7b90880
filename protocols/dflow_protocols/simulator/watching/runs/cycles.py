"""Nobody waits in a circle: each leaves a unit to the next, or asks the next for a shard, and none of them has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ....names import NodeId, RunId, ShardId, TaskKey
from ....run_state.outbox import LEASE
from ....run_state.run_state import RunState
from ...model.host import Host
from ...world import World
from ..checker import Checker, Steady, living_at, node_of, state_of

LOOK_S = 1.0
HEARSAY = 2  # leases that a claim lives for which its node renews no more: one here, one at whom it was heard of
SLACK_S = 2.0

Waits = dict[NodeId, set[NodeId]]  # who waits for whom: for all of them to give up, or for one to be done
Matter = tuple[RunId, TaskKey | ShardId]  # what is waited for


class Cycles(Checker):
    """`no_cycle`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._since: dict[Matter, float] = {}
        self._look_at = LOOK_S

    def inspect(self) -> None:
        now = self.world.now
        if now < self._look_at:
            return
        self._look_at, since, self._since = now + LOOK_S, self._since, {}
        for run in self.world.runs:
            active = [
                (host, state)
                for host in self.world.live()
                if host.answers and (state := state_of(host, run)) is not None and state.is_active
            ]
            if not active:
                continue
            patience_s = HEARSAY * LEASE * max(node_of(host).membership.suspicion_s() for host, _ in active) + SLACK_S
            matters: list[tuple[TaskKey | ShardId, Waits]] = [*_units(active), *_shards(active)]
            for what, waits in matters:
                circle = in_circle(waits)
                if not circle:
                    continue
                began = self._since.setdefault((run, what), since.get((run, what), now))
                if now - began > patience_s:
                    names = ", ".join(host.name for host, _ in active if host.id in circle)
                    raise self.broken(f"{names} wait for each other for {now - began:.0f} s: {what}", "no_cycle")


def in_circle(waits: Mapping[NodeId, set[NodeId]]) -> set[NodeId]:
    """Those that wait for nobody but each other, or for who does."""
    left = set(waits)
    while free := {node for node in left if waits[node] - left}:
        left -= free
    return left


def _units(active: list[tuple[Host, RunState]]) -> Iterator[tuple[TaskKey, Waits]]:
    """Units of open steps, by who takes them for others' work."""
    found: dict[TaskKey, Waits] = {}
    for host, state in active:
        if state.position is None:
            continue
        step, living = state.step(state.position.step), living_at(host)
        heard = max(member.heard for member in node_of(host).membership.members.values())  # the node's own time, nearly
        for unit in {*step.claims, *state.loans.lent}:
            loan = state.loans.lent.get(unit)
            claimants = [] if loan is not None else state.loans.believed(unit, step.claimants(heard, unit))
            others = {loan.thief} if loan is not None else {node for node in claimants if node in living}
            if others and not _has_in_hand(state, unit):
                found.setdefault(unit, {})[host.id] = others
    yield from found.items()


def _has_in_hand(state: RunState, unit: TaskKey) -> bool:
    mine = [*(call.unit for call in state.calls.values()), *state.loans.borrowed, *state.gathering]
    return any(each.holds(unit) or unit.holds(each) for each in mine)


def _shards(active: list[tuple[Host, RunState]]) -> Iterator[tuple[ShardId, Waits]]:
    """Shards that nodes are to bring near for others, and do not have."""
    found: dict[tuple[ShardId, int, int], Waits] = {}
    for host, state in active:
        for bringing in state.bringing:
            if not host.store.has(bringing.shard, bringing.first, bringing.end):
                key = bringing.shard.id, bringing.first, bringing.end
                found.setdefault(key, {}).setdefault(bringing.asker, set()).add(host.id)
    for (shard, _, _), waits in found.items():
        yield shard, waits
