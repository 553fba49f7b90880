"""The deal: units of work to members, in contiguous runs, O(units + members), without a message."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from ..names import NodeId

U = TypeVar("U")


def deal(units: Sequence[U], members: Sequence[NodeId]) -> dict[U, NodeId]:
    """Contiguous runs of `units`, whose lengths differ by at most one, the longer ones first.

    Longer runs first keeps runs of leaves aligned: 8 leaves to 3 members are 3, 3, 2, which is five aligned blocks,
    where 3, 2, 3 would be six. No members: nothing is dealt.
    """
    homes: dict[U, NodeId] = {}
    if not members:
        return homes
    share, longer = divmod(len(units), len(members))
    at = 0
    for place, member in enumerate(members):
        end = at + share + (place < longer)
        for unit in units[at:end]:
            homes[unit] = member
        at = end
    return homes


def homes(
    units: Sequence[U], roster: Sequence[NodeId], living: Collection[NodeId], unfinished: Collection[U]
) -> dict[U, NodeId]:
    """Each unit's home: as dealt to the whole roster; what a dead member left unfinished is dealt again to the living.

    A function of the set of the dead, not of the order of their deaths, so that nodes agree as soon as they agree who
    lives.
    """
    dealt = deal(units, roster)
    left = [unit for unit in units if unit in unfinished and unit in dealt and dealt[unit] not in living]
    dealt.update(deal(left, [member for member in roster if member in living]))
    return dealt
