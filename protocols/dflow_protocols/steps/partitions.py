"""Partitions: whose the unfinished partitions of a chain are now, kept at one node as what decides that changes.

A partition is finished or left out, taken by somebody, or due at its home. That follows from its records, the claims
and loans of it, and its failures: where any of these changed it is derived again. What decides for all of them at once
(who lives, who is able, the roster) has all derived again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf

from ..claiming.loans import Borrowed, Lent
from ..journal import UNREAD
from ..names import MANIFEST, NodeId, Partition, TaskKey
from ..pipeline.plan import Chain
from ..work import ChainWork
from .duty import AHEAD, CHAIN, CHAIN_REST, EVALUATE, Due, Duty
from .patience import Wait
from .progress import ChainProgress
from .view import StepView, able_home, dealt_now, params_of


class OpenPartitions:
    """Of one chain, from one version. `due` brings them up to date first."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._decided_by: tuple[object, ...] = ()  # for all partitions at once
        self._end = 0  # the first that is in no round so far
        self._progress: ChainProgress | None = None  # as it was read
        self._read = UNREAD, UNREAD  # up to where, of that and of the claims
        self._lent: dict[TaskKey, Lent] = {}
        self._borrowed: dict[TaskKey, Borrowed] = {}
        self._taken_until = inf  # when the first ends of the claims that keep this node from a partition
        self._dealt: dict[int, NodeId] = {}
        self._here: dict[int, Duty] = {}
        self._order: list[int] = []  # of these, by partition
        self._elsewhere: dict[int, NodeId | None] = {}  # by partition, its home
        self._homes: Counter[NodeId | None] = Counter()  # how many of these each has

    def due(self, view: StepView) -> Due:
        """What is due here, and what has a home that shows no claim, or does."""
        able = view.able(self._chain.stages)
        self._follow(view, able)
        found = Due([self._here[partition] for partition in self._order])
        if view.is_idle and view.me in able and any(home not in view.at_work for home in self._homes):
            partitions = sorted(self._elsewhere)
        else:  # this node takes nothing of others: all that can happen is that somebody is waited for no longer
            waits = self._partitions(view.step.patience.units(Wait.HOME))
            partitions = sorted(partition for partition in waits if partition in self._elsewhere)
        for partition in partitions:
            unit, home = self._unit(view, partition), self._elsewhere[partition]
            rank = found.orphan_rank(view, self._rank(view), unit, home, able)
            if rank is not None:
                found.here.append(self._duty(view, partition, rank))
        return found

    def _follow(self, view: StepView, able: frozenset[NodeId]) -> None:
        """Derive again what may be not as it was."""
        progress, claims, loans = view.progress_of(self._chain), view.step.claims_changed, view.loans
        self._end = view.end_of(self._chain)
        by = view.step.roster, view.living, able, view.failures.changes, tuple(view.skipped), view.is_ahead
        decided_by = (*by, self._end)
        is_same = progress is self._progress and decided_by == self._decided_by and view.now < self._taken_until
        parts, units = progress.changed.since(self._read[0]), claims.since(self._read[1])
        self._progress, self._read = progress, (progress.changed.end, claims.end)
        if parts is None or units is None or not is_same:
            dirty = None
        else:
            moved = [*units, *_differing(self._lent, loans.lent), *_differing(self._borrowed, loans.borrowed)]
            dirty = dict.fromkeys([*parts, *self._partitions(moved)])
        self._decided_by, self._lent, self._borrowed = decided_by, dict(loans.lent), dict(loans.borrowed)
        if dirty is None:
            self._derive_all(view, able)
        else:
            for partition in dirty:
                self._derive(view, able, partition)

    def _derive_all(self, view: StepView, able: frozenset[NodeId]) -> None:
        self._dealt = dealt_now(view, self._chain, able)
        self._taken_until = inf
        self._here.clear()
        self._order.clear()
        self._elsewhere.clear()
        self._homes.clear()
        for partition in view.unfinished(self._chain):
            self._place(view, able, partition, self._dealt.get(partition))

    def _derive(self, view: StepView, able: frozenset[NodeId], partition: int) -> None:
        if self._here.pop(partition, None) is not None:
            del self._order[bisect_left(self._order, partition)]
        if partition in self._elsewhere:
            self._homes -= Counter([self._elsewhere.pop(partition)])
        is_whole = len(view.progress_of(self._chain).done[partition]) == len(self._chain.stages)
        if not is_whole and partition < self._end and self._unit(view, partition) not in view.skipped:
            self._place(view, able, partition, self._dealt.get(partition))

    def _place(self, view: StepView, able: frozenset[NodeId], partition: int, home: NodeId | None) -> None:
        """An unfinished partition is his who has taken it, else this node's, or its home's. `home`: as it is dealt."""
        unit = self._unit(view, partition)
        if view.is_taken(unit):
            view.step.patience.end(Wait.HOME, unit)  # should that end, its home has its time again
            ends = [until for until in view.step.claims.get(unit, {}).values() if until > view.now]
            self._taken_until = min([self._taken_until, *ends])
        elif unit in view.loans.borrowed or able_home(unit, home, view.failures.nodes(unit), able) == view.me:
            self._here[partition] = self._duty(view, partition, self._rank(view))
            insort(self._order, partition)
        else:
            home = able_home(unit, home, view.failures.nodes(unit), able)
            self._elsewhere[partition] = home
            self._homes[home] += 1

    def _rank(self, view: StepView) -> int:
        if view.is_ahead:
            return AHEAD
        return CHAIN if self._chain.sealed_in == MANIFEST else EVALUATE

    def _duty(self, view: StepView, partition: int, rank: int) -> Duty:
        """To do the rest of a partition: what is done of it is not done again."""
        chain, source, before = self._chain, view.source(self._chain), view.progress_of(self._chain).done[partition]
        assert source is not None, "a chain is open only where it is known what it reads"
        inputs = tuple((f"{record.task.stage}.{name}", ref) for record in before for name, ref in record.outputs)
        reads = (view.begins_with(chain), *(ref.id for record in before for ref in record.shards))
        params = params_of(source.state, chain.models, chain.bases)
        call = chain.call(len(before))
        number = view.sampled_with if chain.sealed_in == MANIFEST else None
        together, weights = chain.together(call), view.coefficients(source, call)
        work = ChainWork(view.step.number, call, partition, params, inputs, together, number, weights)
        needs = tuple((ref, None) for _, ref in (*params, *inputs))
        if before and self._rank(view) in (CHAIN, AHEAD):
            rank += CHAIN_REST - CHAIN
        return Duty(rank, self._unit(view, partition), work, needs, reads)

    def _unit(self, view: StepView, partition: int) -> TaskKey:
        return TaskKey(view.step.number, self._chain.stages[0], Partition(partition))

    def _partitions(self, units: Iterable[TaskKey]) -> Iterator[int]:
        """Which of these units are partitions of this chain."""
        for unit in units:
            if unit.stage == self._chain.stages[0] and isinstance(unit.part, Partition):
                yield unit.part.index


def _differing(before: Mapping[TaskKey, object], now: Mapping[TaskKey, object]) -> Iterator[TaskKey]:
    """The keys under which two tables do not have the same."""
    if before != now:
        yield from (key for key, value in before.items() if now.get(key) != value)
        yield from (key for key in now if key not in before)
