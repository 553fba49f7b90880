"""The deal: units of work to members, in contiguous runs, by how many each can run at once, without a message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from ..names import NodeId

U = TypeVar("U")
Slots = Mapping[NodeId, int]
ONE_EACH: Slots = MappingProxyType({})


def deal(units: Sequence[U], members: Sequence[NodeId], slots: Slots = ONE_EACH) -> dict[U, NodeId]:
    """Contiguous runs of `units`, as long as the members' slots are many (who is not named has one): by largest
    remainder, ties to the earlier member; the longer runs first.

    Longer runs first keeps runs of leaves aligned: 8 leaves to 3 members are 3, 3, 2, which is five aligned blocks,
    where 3, 2, 3 would be six. No members: nothing is dealt.
    """
    if not members:
        return {}
    weights = tuple(slots.get(member, 1) for member in members)
    return dict(zip(units, _runs(len(units), tuple(members), weights), strict=True))


@lru_cache(maxsize=64)
def _runs(count: int, members: tuple[NodeId, ...], weights: tuple[int, ...]) -> tuple[NodeId, ...]:
    """Whose each of `count` units is. Asked for at every look at a step, and the same for all of that step."""
    total = sum(weights)
    shares = [count * weight // total for weight in weights]
    by_remainder = sorted(range(len(members)), key=lambda place: (-(count * weights[place] % total), place))
    for place in by_remainder[: count - sum(shares)]:
        shares[place] += 1
    longest_first = sorted(range(len(members)), key=lambda place: -shares[place])
    return tuple(members[place] for place in longest_first for _ in range(shares[place]))


def trained_by(
    partitions: int, leaves: int, members: Sequence[NodeId], living: frozenset[NodeId], slots: Slots
) -> tuple[NodeId, ...]:
    """Who trains on each of so many partitions, if all of them have as many tokens: the leaves, which are cut by those,
    have their homes in runs. Nobody does where no member lives."""
    return _leaf_homes(partitions, leaves, tuple(members), living, tuple(slots.get(member, 1) for member in members))


@lru_cache(maxsize=64)
def _leaf_homes(
    partitions: int, leaves: int, members: tuple[NodeId, ...], living: frozenset[NodeId], weights: tuple[int, ...]
) -> tuple[NodeId, ...]:
    if living.isdisjoint(members):
        return ()
    dealt = homes(range(leaves), members, living, dict(zip(members, weights, strict=True)), in_runs=True)
    return tuple(dealt[(2 * place + 1) * leaves // (2 * partitions)] for place in range(partitions))


def beside(dealt: Sequence[NodeId], place: int) -> Iterator[NodeId]:
    """Whose the unit at `place` is, then those whose units lie next to it, the nearest first. The last lies beside the
    first, so that each is beside as many."""
    for distance in range(len(dealt) // 2 + 1):
        yield dealt[place - distance]
        yield dealt[(place + distance) % len(dealt)]


@lru_cache(maxsize=64)
def _turns(count: int, members: tuple[NodeId, ...], weights: tuple[int, ...]) -> tuple[NodeId, ...]:
    """The same shares, each spread over all of the units."""
    shares = Counter(_runs(count, members, weights))
    turns = [
        ((2 * turn + 1) / shares[member], place, member)
        for place, member in enumerate(members)
        for turn in range(shares[member])
    ]
    return tuple(member for _, _, member in sorted(turns))


def homes(
    units: Sequence[U],
    roster: Sequence[NodeId],
    living: Collection[NodeId],
    slots: Slots = ONE_EACH,
    in_runs: bool = False,
) -> dict[U, NodeId]:
    """Each unit's home: as dealt to the whole roster; what dead members were dealt is dealt again to the living, in
    turn, so that what is left of it is shared evenly however much of it was done. `in_runs`: in contiguous runs.

    A function of the set of the dead, not of the order of their deaths nor of what is finished, so that nodes agree as
    soon as they agree who lives: claims of the same unit at two homes would be known to replicas alone.
    """
    dealt = deal(units, roster, slots)
    if all(member in living for member in roster):
        return dealt
    left = [unit for unit in units if unit in dealt and dealt[unit] not in living]
    members = tuple(member for member in roster if member in living)
    if members:
        weights = tuple(slots.get(member, 1) for member in members)
        share = _runs if in_runs else _turns
        dealt.update(zip(left, share(len(left), members, weights), strict=True))
    return dealt
