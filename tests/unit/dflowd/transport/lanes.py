"""Control lanes on loopback, each with a key of its own, for tests to talk over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from dflow_protocols.events import Event, Report
from dflow_protocols.names import NodeId
from dflowd.process.host import Host
from dflowd.transport.control import ControlLane, ReplyTo
from dflowd.transport.keys import AllowList, KeyPair, new_key_pair
from dflowd.transport.router import BindError, LinkTiming
from tests.support.until import until_async

DEADLINE_S = 20.0


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return once `condition()` is true; fail the test after DEADLINE_S."""
    await until_async(condition, DEADLINE_S, lambda: f"{what} did not come true in {DEADLINE_S:.0f} s")


@dataclass
class Party:
    """One lane and all it heard."""

    keys: KeyPair
    lane: ControlLane
    address: str
    frames: list[tuple[NodeId, str, bytes]] = field(default_factory=list)
    links: list[ReplyTo] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    revoked: list[NodeId] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [frame for _, _, frame in self.frames]

    def on_frame(self, source: NodeId, role: str, data: bytes, link: ReplyTo) -> None:
        self.frames.append((source, role, data))
        self.links.append(link)

    def on_revoked(self, peer: NodeId) -> None:
        self.revoked.append(peer)

    def heard(self, name: str) -> bool:
        return any(report.name == name for report in self.reports)


def ignore(event: Event) -> None:
    """Lanes tell the node nothing themselves."""


class Site:
    """An allow-list and the lanes under it."""

    def __init__(self, folder: Path) -> None:
        self.list_file = folder / "allow"
        self.list_file.write_text("")
        self.parties: list[Party] = []
        self._lines: list[str] = []

    def allow(self, keys: KeyPair, role: str = "node") -> None:
        self._lines.append(f"{keys.public_text} n{len(self._lines)} {role}")
        self._write()

    def forbid(self, keys: KeyPair) -> None:
        self._lines = [line for line in self._lines if keys.public_text not in line]
        self._write()

    def open(self, keys: KeyPair | None = None, role: str = "node", address: str = "tcp://127.0.0.1:0") -> Party:
        """A lane that listens, its key on the list."""
        if keys is None:
            keys = new_key_pair()
            self.allow(keys, role)
        reports: list[Report] = []
        host = Host(asyncio.get_running_loop(), ignore, reports.append)
        timing = LinkTiming(redial_ms=20, redial_max_ms=200)
        lane = ControlLane(host, keys, AllowList(self.list_file), timing)
        try:
            bound = lane.bind(address)
        except BindError:
            lane.close()
            raise
        party = Party(keys, lane, bound, reports=reports)
        lane.start(party)
        self.parties.append(party)
        return party

    def close(self, party: Party) -> None:
        self.parties.remove(party)
        party.lane.close()

    def close_all(self) -> None:
        for party in list(self.parties):
            self.close(party)

    def _write(self) -> None:
        fresh = self.list_file.with_suffix(".new")
        fresh.write_text("\n".join(self._lines) + "\n")
        fresh.replace(self.list_file)


def knock(dealer: zmq.Socket[bytes], frame: bytes) -> None:
    """Send as somebody who may be refused at once: then there is no link, and a send that waits for one never ends."""
    with contextlib.suppress(zmq.Again):
        dealer.send(frame, zmq.NOBLOCK)
