"""Messages as frames: what one frame does not take leaves in several, whichever way it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from dflow_protocols.events import Report, SendThrough
from dflow_protocols.names import NodeId
from dflow_protocols.wire.fields import MAX_BYTES, MAX_SEALED
from dflow_protocols.wire.frame import Frame, decode_frame
from dflow_protocols.wire.gossip import Knock, Relayed
from dflowd.transport.aead import Envelopes
from dflowd.transport.keys import new_key_pair
from dflowd.transport.outgoing import Outgoing

RELAY = NodeId("cc" * 16)
ME, FAR = new_key_pair(), new_key_pair()
LARGE = Knock(bytes(MAX_BYTES))  # the longest that a field of bytes may be


@dataclass
class Lane:
    """Takes whatever it is given."""

    sent: list[tuple[NodeId, bytes]] = field(default_factory=list)

    def send(self, to: NodeId, frame: bytes) -> bool:
        self.sent.append((to, frame))
        return True

    def is_node(self, peer: NodeId) -> bool:
        return True


def sent_through(*messages: Any) -> tuple[list[Any], list[Report]]:
    """What the far member reads of frames that came by the relay, message by message, and what is reported."""
    lane, reports = Lane(), list[Report]()
    outgoing = Outgoing(lane, ME, reports.append)  # type: ignore[arg-type]
    outgoing.send_through(SendThrough(RELAY, FAR.id, FAR.public, Frame(None, messages)))
    read: list[Any] = []
    for to, data in lane.sent:
        assert to == RELAY
        (relayed,) = decode_frame(data).messages
        assert isinstance(relayed, Relayed)
        opened = Envelopes(FAR).open(ME.public, relayed.sealed)
        assert opened is not None
        read += decode_frame(opened).messages
    return read, reports


@pytest.mark.parametrize("count", [1, 5])
def test_what_no_frame_takes_goes_through_a_relay_in_several(count: int) -> None:
    """The books of a step with many partitions are more than a frame, and would be asked for without end."""
    assert sent_through(*[LARGE] * count) == ([LARGE] * count, [])


def test_a_frame_that_fits_by_itself_and_not_into_a_relays_is_sent_in_several() -> None:
    """A relay refuses the whole of it, and its sender never hears of that."""
    last = Knock(bytes(MAX_SEALED - 3 * MAX_BYTES - 100))
    assert sent_through(LARGE, LARGE, LARGE, last) == ([LARGE, LARGE, LARGE, last], [])
    full = Knock(bytes(MAX_BYTES - 2_000))
    assert sent_through(LARGE, LARGE, LARGE, full) == ([LARGE, LARGE, LARGE, full], [])
