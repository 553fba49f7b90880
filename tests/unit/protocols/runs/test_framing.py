"""Frames that go round: who passes on what, and what comes of relayed frames that cannot be."""

from __future__ import annotations

from random import Random

import pytest

from dflow_protocols.events import Received, Send, SendThrough, Unseal
from dflow_protocols.membership.machine import Membership
from dflow_protocols.membership.reach import MAX_HOPS
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.runs.framing import framed, pass_on
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.gossip import MetaGet, Relayed, Sync, Update
from dflow_protocols.wire.heartbeat import Delta, Mark
from tests.unit.protocols.membership.mesh import meta_of

NOTHING_NEW = Delta(Mark(1, 3), 3, None, ())
ME, NEAR, FAR = (meta_of(index).node for index in range(3))


def member(apart: tuple[NodeId, ...]) -> Membership:
    """Node 0 of three; the last one says that it cannot talk to these."""
    life = Membership(ME, 1, meta_of(0), Timing.local(), Random(1), [], [], 0.0)
    for index, says in ((1, ()), (2, apart)):
        meta = meta_of(index)
        claim = Update(meta.node, 1, 0, "alive", meta.id, None, apart=says)
        life.handle(0.0, Received(meta.node, Sync(False, meta, (claim,))))
    return life


def test_frames_for_who_is_apart_go_through_a_relay_and_others_straight() -> None:
    life = member(apart=(ME,))
    message = MetaGet(())
    frame = Frame(NOTHING_NEW, (message,))
    assert framed([Send(NEAR, message), Send(FAR, message)], life, lambda _: NOTHING_NEW) == [
        Send(NEAR, frame),
        SendThrough(NEAR, FAR, meta_of(2).public_key, frame),
    ]
    assert framed([Send(FAR, message, is_direct=True)], life, lambda _: NOTHING_NEW) == [Send(FAR, frame)]


def test_a_relay_passes_a_frame_on_and_its_receiver_opens_it() -> None:
    life = member(apart=())

    stranger = NodeId("ab" * 16)
    onward = Relayed(stranger, FAR, 1, b"sealed")
    assert pass_on(life, ME, NEAR, Relayed(stranger, FAR, 0, b"sealed")) == [Send(FAR, onward, is_direct=True)]
    key = meta_of(2).public_key
    assert pass_on(life, ME, NEAR, Relayed(FAR, ME, 1, b"sealed")) == [Unseal(FAR, key, NEAR, b"sealed")]


@pytest.mark.parametrize(
    "relayed",
    [
        Relayed(NodeId("ab" * 16), ME, 0, b""),  # from who is not known
        Relayed(ME, ME, 0, b""),  # from oneself
        Relayed(NEAR, NodeId("ab" * 16), 0, b""),  # to who is not known
        Relayed(FAR, NEAR, 0, b""),  # back to who passed it on
        Relayed(NEAR, FAR, MAX_HOPS, b""),  # too far already
    ],
)
def test_what_leads_nowhere_is_lost(relayed: Relayed) -> None:
    """Any frame may be; one that went in circles would not end."""
    assert pass_on(member(apart=()), ME, NEAR, relayed) == []
