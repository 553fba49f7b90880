"""Rosters: who a step is dealt to. Made with the version before the step, by whoever makes that version's seal.

A node cannot tell members that died from members that are cut off. Where a pipeline asks that only one part of a cut
network goes on (`on_split: pause_minority`), it counts who is alive to it of the roster: part of that goes on, the rest
waits until it meets the others again, or a person says that they are gone for good. This makes branches rare; that
there is one chain in the end rests on fork choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..claiming.deal import ONE_EACH, Slots
from ..names import NodeId
from ..wire.steps import Roster


def make_roster(
    step: int, generation: int, members: Iterable[NodeId], trainers: Iterable[NodeId], slots: Slots = ONE_EACH
) -> Roster:
    """Members in order of id: everybody ranks them by hash for each purpose anyway. `slots`: of who has not one."""
    ordered = tuple(sorted(set(members)))
    return Roster(
        step, generation, ordered, tuple(sorted(set(trainers))), tuple(slots.get(node, 1) for node in ordered)
    )


def names_each_once(roster: Roster) -> bool:
    """As each does that make_roster() gave; of another, units cannot be dealt."""
    return all(len(set(nodes)) == len(nodes) for nodes in (roster.members, roster.trainers))


def newer(mine: Roster | None, other: Roster | None) -> Roster | None:
    """The one that counts: higher generation, then smaller id. Commutative, associative, idempotent."""
    if mine is None or other is None:
        return mine or other
    return min(mine, other, key=lambda roster: (-roster.generation, roster.id))


def is_minority(roster: Sequence[NodeId], living: Collection[NodeId]) -> bool:
    """Whether the living are the smaller part of `roster` (in the step's order). Of two equal halves the one with the
    first member is not, so that they never both wait, and never both go on."""
    here = sum(1 for node in roster if node in living)
    return 2 * here < len(roster) or (2 * here == len(roster) and roster[0] not in living)
