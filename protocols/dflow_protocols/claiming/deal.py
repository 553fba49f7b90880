"""The deal: units of work to members, in contiguous runs, by how many each can run at once, without a message."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


def homes(
    units: Sequence[U],
    roster: Sequence[NodeId],
    living: Collection[NodeId],
    unfinished: Collection[U],
    slots: Slots = ONE_EACH,
) -> dict[U, NodeId]:
    """Each unit's home: as dealt to the whole roster; what a dead member left unfinished is dealt again to the living.

    A function of the set of the dead, not of the order of their deaths, so that nodes agree as soon as they agree who
    lives.
    """
    dealt = deal(units, roster, slots)
    if all(member in living for member in roster):
        return dealt
    unfinished = frozenset(unfinished)
    left = [unit for unit in units if unit in unfinished and unit in dealt and dealt[unit] not in living]
    dealt.update(deal(left, [member for member in roster if member in living], slots))
    return dealt
