"""What faults are injected into: a world, as far as they know it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from ...events import Event
from ...names import RunId
from ...work import FailureKind
from ..model.host import Host
from ..model.network import Network


class FaultTarget(Protocol):
    @property
    def seed(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def hosts(self) -> Sequence[Host]: ...
    @property
    def network(self) -> Network: ...
    @property
    def runs(self) -> Collection[RunId]:
        """All that were submitted."""

    def note(self, fault: object) -> None:
        """Write it into the story."""

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        """Have it happen so much later."""

    def start(self, host: Host) -> None: ...
    def kill(self, host: Host) -> None: ...
    def copy(self, host: Host) -> Host:
        """A machine that was not there before, with a copy of what lies on that one's disk, its key with it."""

    def wake(self, host: Host) -> None: ...
    def arm(self, host: Host) -> None:
        """Set its alarm anew: its clock is another."""

    def deliver(self, host: Host, event: Event) -> None: ...
    def cancel(self, node: int, run: RunId) -> None:
        """As a client of that node."""

    def stop(self, node: int, run: RunId) -> None:
        """As a client of that node."""

    def resume(self, node: int, run: RunId) -> None:
        """As a client of that node."""

    def drain(self, node: int, drained: bool) -> None:
        """As a client of that node."""

    def poison_work(self, stage: str, partition: int, kind: FailureKind) -> None:
        """Every work on that partition of the chain breaks, anywhere."""

    def mend_works(self) -> None:
        """No work breaks because of what it works on any more."""


def crash(target: FaultTarget, host: Host, restart_after_s: float | None) -> None:
    """Its process is gone, if it had one, and starts again after a while, or never."""
    if host.process is None:
        return
    target.kill(host)
    if restart_after_s is not None:
        start_later(target, host, restart_after_s)


def start_later(target: FaultTarget, host: Host, seconds: float) -> None:
    """Somebody starts it after so long, if it is still down then."""
    host.expect_back()
    target.after(seconds, lambda: target.start(host) if host.process is None else None)


def named(target: FaultTarget, node: int | None, actor: Host | None) -> Host:
    """The machine that a fault names, or whoever set it off."""
    if node is not None:
        return target.hosts[node]
    assert actor is not None, "this fault names no node and nobody set it off"
    return actor
