"""Who slept so long that others hold it dead hears what happened before it acts on what was true then."""

from __future__ import annotations

from ...events import Received, Report, Send, Start
from ...names import NodeId
from ...wire.gossip import Sync
from ...wire.steps import ClaimPut, SealPut, StealAsk, StealGrant
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, node_of

SURELY_S = 1.0  # beyond the suspicion time; what a node itself takes for sleep is a little less than all of it
CLOCK_S = 0.1  # by so much a node's own clock and its turns may tell the wait for others shorter


class Waking(Checker):
    """`slept_listens`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._paused: dict[NodeId, float] = {}  # since when, of those that sleep now
        self._knew: dict[NodeId, bool] = {}  # whether it knew of somebody else that lives, when last seen awake
        self._woke: dict[NodeId, float] = {}  # when, of those that slept for long and heard nothing since

    @property
    def sees(self) -> Seen:
        return {Start: self._acts, Send: self._sent, "membership.stalled": self._stalled}

    @property
    def hears(self) -> Seen:
        return {Received: self._received}

    def inspect(self) -> None:
        for host in self.world.hosts:
            if host.paused:
                self._paused.setdefault(host.place, self.world.now)
            elif host.process is None:
                self._paused.pop(host.place, None)
                self._woke.pop(host.place, None)
            else:
                if host.place not in self._paused:
                    self._knew[host.place] = len(node_of(host).membership.alive()) > 1
                self._notice(host)

    def _notice(self, host: Host) -> None:
        """It is awake; whether it slept for long is known by when it was last seen asleep."""
        since = self._paused.pop(host.place, None)
        if since is not None and self.world.now - since > node_of(host).membership.suspicion_s() + SURELY_S:
            self._wakes(host)

    def _wakes(self, host: Host) -> None:
        """After a long sleep. Who knew of nobody else that lives has nobody to ask: whoever spoke to it meanwhile came
        later."""
        if self._knew.get(host.place):
            self._woke[host.place] = self.world.now

    def _stalled(self, host: Host, report: Report) -> None:
        membership = node_of(host).membership
        if report.fields["seconds"] > membership.suspicion_s() + membership.timing.probe_timeout_s:
            self._wakes(host)

    def _received(self, host: Host, event: Received) -> None:
        self._notice(host)
        if any(isinstance(message, Sync) and not message.wants_answer for message in event.message.messages):
            self._woke.pop(host.place, None)

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            if _says_that_it_acts(message):
                self._acts(host, message)

    def _acts(self, host: Host, what: object) -> None:
        self._notice(host)
        node, woke = node_of(host), self._woke.get(host.place)
        if woke is None or len(node.membership.alive()) <= 1:
            return
        if self.world.now - woke < node.membership.suspicion_s() - CLOCK_S:
            name = type(what).__name__
            raise self.broken(
                f"{host.name} woke after a long sleep, heard from nobody since, and acts: {name}", "slept_listens"
            )


def _says_that_it_acts(message: object) -> bool:
    """Not that it gives up what it had, nor what was settled before."""
    match message:
        case ClaimPut(units=units):
            return bool(units)
        case SealPut(settled=settled):
            return not settled
    return isinstance(message, StealAsk | StealGrant)
