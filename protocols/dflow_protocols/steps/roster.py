"""Rosters: who a step is dealt to. Made with the version before the step, by whoever makes that version's seal."""

from __future__ import annotations

from collections.abc import Iterable

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


def newer(mine: Roster | None, other: Roster | None) -> Roster | None:
    """The one that counts: higher generation, then smaller id. Commutative, associative, idempotent."""
    if mine is None or other is None:
        return mine or other
    return min(mine, other, key=lambda roster: (-roster.generation, roster.id))
