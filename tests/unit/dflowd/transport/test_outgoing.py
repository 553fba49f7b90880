"""Messages as frames: what one frame does not take leaves in several, whichever way it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dflow_protocols.events import Report, SendThrough
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.wire.fields import MAX_BYTES, MAX_FRAME_BYTES, MAX_ITEMS, MAX_SEALED
from dflow_protocols.wire.frame import Frame, decode_frame
from dflow_protocols.wire.gossip import Ack, Knock, Relayed
from dflow_protocols.wire.heartbeat import Delta, Heartbeat, Mark
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


def through(*frames: Frame) -> tuple[list[Frame], list[Report]]:
    """What the far member reads of frames that came by the relay, and what is reported."""
    lane, reports = Lane(), list[Report]()
    outgoing = Outgoing(lane, ME, reports.append)  # type: ignore[arg-type]
    for frame in frames:
        outgoing.send_through(SendThrough(RELAY, FAR.id, FAR.public, frame))
    read: list[Frame] = []
    for to, data in lane.sent:
        assert to == RELAY
        (relayed,) = decode_frame(data).messages
        assert isinstance(relayed, Relayed)
        opened = Envelopes(FAR).open(ME.public, relayed.sealed)
        assert opened is not None
        read.append(decode_frame(opened))
    return read, reports


def directly(*frames: Frame) -> tuple[list[Frame], list[Report]]:
    """The same of frames that are due to a member in one turn, over its link."""
    lane, reports = Lane(), list[Report]()
    Outgoing(lane, ME, reports.append).send(FAR.id, list(frames))  # type: ignore[arg-type]
    return [decode_frame(data) for _, data in lane.sent], reports


def sent_through(*messages: Any) -> tuple[list[Any], list[Report]]:
    """The messages of a frame that came by the relay, and what is reported."""
    read, reports = through(Frame(None, messages))
    return [message for frame in read for message in frame.messages], reports


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


@pytest.mark.parametrize("way", [directly, through])
def test_where_a_node_stands_is_told_though_its_messages_fill_several_frames(way: Callable[..., Any]) -> None:
    """It would ride on the next frame only: who waits to hear of a version waits until there is something else."""
    delta = Delta(Mark(1, 1), 0, None, (Heartbeat(RunId("ab" * 16), None, None, None),))
    read, reports = way(Frame(delta, (LARGE,) * 5))
    assert (read[0], reports) == (Frame(delta, ()), [])
    assert {frame.delta for frame in read[1:]} == {None}
    assert [message for frame in read for message in frame.messages] == [LARGE] * 5


@pytest.mark.parametrize("way", [directly, through])
def test_more_messages_than_a_frame_may_have_leave_in_few(way: Callable[..., Any]) -> None:
    """A member's queue of frames is short: one for each would fill it."""
    asked = tuple(Ack(number, ()) for number in range(MAX_ITEMS + 1))
    read, reports = way(Frame(None, asked))
    assert (len(read), reports) == (2, [])
    assert read[0].messages + read[1].messages == asked


@pytest.mark.parametrize("way", [directly, through])
def test_what_is_too_long_for_any_frame_is_reported(way: Callable[..., Any]) -> None:
    """It is a fault of this program; what is due beside it leaves."""
    heartbeat = Heartbeat(RunId("ab" * 16), None, None, None)
    delta = Delta(Mark(1, 1), 0, None, (heartbeat,) * (MAX_FRAME_BYTES // 32))
    read, (report,) = way(Frame(delta, (LARGE,)))
    assert (report.name, report.fields["message"]) == ("wire.too_long", "Delta")
    assert read == [Frame(None, (LARGE,))]
