"""A member with a key may say all that the wire carries: no node breaks, grows, or asks for the impossible."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.events import Fetch, Received, Send, Tick
from dflow_protocols.membership.table import MAX_MEMBERS
from dflow_protocols.names import MAX_SHARD_BYTES, chunk_count
from dflow_protocols.simulator.goals import node as node_of
from dflow_protocols.steps.step import MAX_SEALS
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.frame import Frame, decode_frame, encode_frame
from dflow_protocols.wire.steps import FailurePut, RunPut
from tests.support.draws import draws
from tests.support.invention import Inventor
from tests.support.tables import largest_tables
from tests.unit.protocols.midway import Midway

FRAMES = 60


@draws(25)
@given(seed=st.integers(0, 2**32), into_s=st.floats(0.0, 2.5), ends=st.booleans())
def test_nothing_that_a_member_invents_breaks_a_node(seed: int, into_s: float, ends: bool) -> None:
    """Lies near to the truth, in the middle of a step; with `ends` also such as end runs, which a member may."""
    midway, rng = Midway(), Random(seed)
    inventor = Inventor(rng)
    for other in midway.world.hosts:
        for action in node_of(other).handle(other.clock.read(midway.world.now), Tick()):
            if isinstance(action, Send):
                for said in (*action.message.messages, *action.message.heartbeats):
                    inventor.hear(said)
    midway.world.run(into_s)
    node, now = midway.node, midway.now
    for _ in range(FRAMES):
        frame = inventor.frame()
        said = tuple(each for each in frame.messages if ends or not isinstance(each, RunPut | FailurePut))
        try:
            frame = decode_frame(encode_frame(frame.delta, said))
        except (WireError, OverflowError):
            continue
        now += rng.choice([0.0, 0.01, 0.3])
        for action in [*node.handle(now, Received(midway.peer, frame)), *node.handle(now, Tick())]:
            check_action(action)
        node.check()
    for run in node.runs.values():
        assert all(len(step.seals) <= MAX_SEALS for step in run.state.steps.values())
    assert all(entries <= MAX_MEMBERS for entries in largest_tables(node).values())


def check_action(action: object) -> None:
    """What is sent can travel, what is fetched can exist."""
    if isinstance(action, Send):
        assert isinstance(action.message, Frame)
        encode_frame(action.message.delta, action.message.messages)
    if isinstance(action, Fetch):
        assert action.ref.nbytes <= MAX_SHARD_BYTES
        assert 0 <= action.first <= action.end <= chunk_count(action.ref.nbytes)
