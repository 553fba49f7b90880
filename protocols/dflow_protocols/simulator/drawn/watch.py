"""The watch of one world: all checkers, each told of what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...events import Action, Event, Report, Send, SendThrough
from ..model.host import Host
from ..watching.books import Books
from ..watching.checker import Checker, Seen, Steady
from ..watching.ends import Ends
from ..watching.heads import Heads
from ..watching.keeping import Keeping
from ..watching.limits import Limits
from ..watching.naming import Naming
from ..watching.restraint import Restraint
from ..watching.runs.adaptation import Adaptation
from ..watching.runs.comeback import Comeback
from ..watching.runs.cycles import Cycles
from ..watching.runs.ending import Ending
from ..watching.runs.flow import Flow
from ..watching.runs.purity import Purity
from ..watching.runs.thrift import Thrift
from ..watching.twins import Twins
from ..watching.waking import Waking
from ..watching.word import Word
from ..watching.working import Working
from ..world import World

CHECKERS: tuple[type[Checker], ...] = (
    Word,
    Restraint,
    Naming,
    Purity,
    Adaptation,
    Ends,
    Waking,
    Heads,
    Keeping,
    Books,
    Flow,
    Ending,
    Thrift,
    Comeback,
    Cycles,
    Working,
    Twins,
    Limits,
)
INSPECT_S = 0.1  # of virtual time, from one look at the whole world to the next


class Watch:
    """Each of its checkers raises Violation."""

    def __init__(self, world: World, checkers: Iterable[type[Checker]] = CHECKERS) -> None:
        self._world = world
        self._steady = Steady(world)
        self._checkers = [checker(world, self._steady) for checker in checkers]
        self._seen = _by_kind(checker.sees for checker in self._checkers)
        self._seen[SendThrough] = [self._saw_through]
        self._heard = _by_kind(checker.hears for checker in self._checkers)
        world.watch(self)
        self._inspect()

    def saw(self, host: Host, action: Action) -> None:
        """A node's action, once it is performed."""
        kind = action.name if isinstance(action, Report) else type(action)
        for check in self._seen.get(kind, ()):
            check(host, action)

    def _saw_through(self, host: Host, through: SendThrough) -> None:
        """Which way a frame goes is no matter to what it says."""
        self.saw(host, Send(through.to, through.message))

    def heard(self, host: Host, event: Event) -> None:
        """A node's event, before it is taken."""
        for check in self._heard.get(type(event), ()):
            check(host, event)

    def dies(self, host: Host) -> None:
        """A node's process is about to end."""
        for checker in self._checkers:
            checker.dies(host)

    def end(self) -> None:
        """The world has ended well so far."""
        for checker in self._checkers:
            checker.end()

    def _inspect(self) -> None:
        self._steady.inspect()
        for checker in self._checkers:
            checker.inspect()
        self._world.after(INSPECT_S, self._inspect)


def _by_kind(of_each: Iterable[Seen]) -> dict[type | str, list[Callable[[Host, Any], None]]]:
    found: dict[type | str, list[Callable[[Host, Any], None]]] = {}
    for seen in of_each:
        for kind, check in seen.items():
            found.setdefault(kind, []).append(check)
    return found
