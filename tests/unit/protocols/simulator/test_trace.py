"""A world's story for people, and its digest for machines."""

from __future__ import annotations

from dflow_protocols.events import Received, RoomMade, Send, Tick
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.simulator.faults import Crash
from dflow_protocols.simulator.trace import Trace
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.gossip import Gossip
from dflow_protocols.wire.steps import RunGet

PEER = NodeId("ab" * 16)


def frame(*messages: object) -> Frame:
    return Frame(None, messages)


def test_a_story_leaves_out_what_membership_says_and_names_nodes_as_people_do() -> None:
    """The last lines before a violation are read by a person; probes would fill them."""
    trace = Trace()
    trace.add(1.0, "n0", "<-", Tick(), 1)
    trace.add(1.0, "n0", "->", Send(PEER, frame(Gossip(()))), 1)
    trace.add(2.0, "n0", "->", Send(PEER, frame(RunGet(RunId("cd" * 16)))), 2)
    trace.add(3.0, "", "!", Crash(1))
    told = list(trace.story(10, {PEER: "n1"}))
    assert len(told) == 2
    assert "n1" in told[0]
    assert "RunGet" in told[0]
    assert "Crash" in told[1]
    assert list(trace.story(1, {})) == told[1:]


def test_a_digest_covers_every_line_also_those_that_no_story_shows() -> None:
    """Two lives of one seed that differ anywhere differ in it."""
    digests = []
    for event in (Tick(), RoomMade(), Tick()):
        trace = Trace(digest=True)
        trace.add(1.0, "n0", "<-", event)
        trace.add(2.0, "n0", "<-", Received(PEER, frame(Gossip(()))))
        digests.append(trace.digest)
    assert digests[0] == digests[2] != digests[1]
    assert digests[0]
