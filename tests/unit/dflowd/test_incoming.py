"""Frames that a relay brought: whom they are for, and who is to blame for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dflow_protocols.events import Event, Received, Report, Unseal
from dflow_protocols.names import NodeId
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.frame import encode_frame
from dflow_protocols.wire.gossip import Knock, Nack
from dflowd.incoming import MAX_REQUESTS, Incoming
from dflowd.process.host import Host
from dflowd.rooms import Rooms

ORIGIN, RELAY = NodeId("0a" * 16), NodeId("0b" * 16)
ASKED = Request(7, "share.tasks", b"", 1.0)


@dataclass
class Daemon:
    """Opens what the test gives it in place of a sealed frame."""

    is_listed: bool = True
    asked: list[tuple[NodeId, str, Request]] = field(default_factory=list)
    answered: list[tuple[NodeId, Response]] = field(default_factory=list)
    told: list[tuple[NodeId, Response]] = field(default_factory=list)
    posted: list[Event] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def hear(self, data: bytes | None) -> None:
        service = SimpleNamespace(
            on_request=self._serve,
            on_response=lambda source, response: self.answered.append((source, response)),
            tell=lambda to, response: self.told.append((to, response)),
        )
        control = SimpleNamespace(is_node=lambda peer: self.is_listed)
        rooms = SimpleNamespace(service=service, control=control, outgoing=SimpleNamespace(open=lambda action: data))
        host = SimpleNamespace(post=self.posted.append, report=self.reports.append)
        incoming = Incoming(cast("Host", host), cast("Rooms", rooms))
        incoming.on_opened(Unseal(ORIGIN, b"", RELAY, data or b""))

    def _serve(self, source: NodeId, role: str, request: Request, answer: Any) -> None:
        self.asked.append((source, role, request))
        answer(Response(request.id, True, b""))

    @property
    def blamed(self) -> list[str]:
        return [str(report.fields["peer"]) for report in self.reports if report.name == "wire.refused"]


def test_who_gathers_for_a_client_is_answered_by_the_way_it_came() -> None:
    """Two members that cannot talk would else wait for each other until the deadline, at each question."""
    daemon = Daemon()
    daemon.hear(encode_frame(None, (ASKED, Response(3, True, b"share"))))
    assert daemon.asked == [(ORIGIN, "node", ASKED)]
    assert daemon.told == [(ORIGIN, Response(7, True, b""))]
    assert daemon.answered == [(ORIGIN, Response(3, True, b"share"))]
    assert not daemon.posted
    assert not daemon.reports


def test_what_is_for_the_node_comes_from_who_closed_it() -> None:
    """By way of the relay, so that the node knows that there is no link."""
    daemon = Daemon()
    daemon.hear(encode_frame(None, (Nack(1), ASKED)))
    (event,) = daemon.posted
    assert isinstance(event, Received)
    assert (event.source, event.relay, event.message.messages) == (ORIGIN, RELAY, (Nack(1),))
    assert len(daemon.asked) == 1


@pytest.mark.parametrize(
    "data", [b"no frame", encode_frame(None, (Knock(b"t"),)), encode_frame(None, (ASKED,) * (MAX_REQUESTS + 1))]
)
def test_who_closed_a_frame_is_blamed_for_what_it_says(data: bytes) -> None:
    """The relay could not read it."""
    daemon = Daemon()
    daemon.hear(data)
    assert daemon.blamed == [ORIGIN]
    assert not daemon.posted
    assert not daemon.asked


def test_a_relay_is_blamed_for_what_nobody_closed_and_not_for_who_lost_its_leave() -> None:
    """It may have the older allow-list."""
    daemon = Daemon()
    daemon.hear(None)
    assert daemon.blamed == [RELAY]
    revoked = Daemon(is_listed=False)
    revoked.hear(encode_frame(None, (Nack(1),)))
    assert revoked.blamed == [ORIGIN]
    assert not revoked.posted
