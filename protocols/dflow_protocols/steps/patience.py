"""Patience: since when this node sees a thing wait, so that rules can ask how long that lasts.

What waits too long is done by somebody else, or without what is missing. Rules only ask (`lasts`); a wait starts and
ends where a reconcile sees its cause, each subject in one place. So no rule's answer depends on who asked before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from ..names import Partition, TaskKey

Thing: TypeAlias = str | TaskKey | Partition


class Wait(StrEnum):
    """What a node waits for in a step."""

    TURN = "turn"  # for those before it in the succession to do what is due
    ACKS = "acks"  # for all replicas to keep a seal
    COPIES = "copies"  # for second holders of what a manifest is to name
    RETURN = "return"  # for what a seal names, and nobody alive holds, to come back
    HOME = "home"  # for the silent home of a unit to claim it
    BACK_UP = "back-up"  # for who is first in line to hold a second copy of a partition
    TRAINER = "trainer"  # for somebody of the roster who trains to live
    CARRIED = "carried"  # for word of what the step before was trained on
    REMADE = "remade"  # for what of that is lost, before it is made again
    GONE = "gone"  # for somebody to make it again
    UPDATE = "update"  # for somebody to make the next version, where own updates fail
    COMPANY = "company"  # for most of the roster to live


@dataclass(slots=True)
class Patience:
    """One node's with one step. `of`: which of a subject's things, where there are several."""

    since: dict[tuple[Wait, Thing], float] = field(default_factory=dict)

    def start(self, now: float, what: Wait, of: Thing = "") -> None:
        """The thing waits; if it did already, nothing changes."""
        self.since.setdefault((what, of), now)

    def is_waiting(self, what: Wait, of: Thing = "") -> bool:
        return (what, of) in self.since

    def units(self, what: Wait) -> list[TaskKey]:
        """Those for which it waits so."""
        return [of for kind, of in self.since if kind == what and isinstance(of, TaskKey)]

    def lasts(self, now: float, what: Wait, of: Thing = "") -> float:
        """Seconds since it started; 0 while nothing waits."""
        return now - self.since.get((what, of), now)

    def longest(self, now: float, what: Wait) -> float:
        """Seconds since the first of a kind started that still waits; 0 if none does."""
        return now - min((since for (kind, _), since in self.since.items() if kind == what), default=now)

    def end(self, what: Wait, of: Thing = "") -> None:
        """It waits no longer: the next time it does, its patience is whole again."""
        self.since.pop((what, of), None)

    def follow(self, now: float, is_waiting: bool, what: Wait, of: Thing = "") -> None:
        """Start or end, by what a reconcile sees."""
        if is_waiting:
            self.start(now, what, of)
        else:
            self.end(what, of)

    def follow_all(self, now: float, what: Wait, waiting: Collection[Partition]) -> None:
        """The same of all things of a kind: just these wait."""
        for of in [of for kind, of in self.since if kind == what and of not in waiting]:
            self.end(what, of)
        for of in waiting:
            self.start(now, what, of)
