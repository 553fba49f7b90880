"""Frames that relays carry in a world."""

from __future__ import annotations

from dflow_protocols.simulator.model.sealing import close, opened
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.gossip import Gossip


def test_only_the_receiver_opens_what_only_the_origin_closed() -> None:
    """Else a relay could speak for others, and worlds would hold more to be possible than there is."""
    origin, to, relay = (World.id_of(index) for index in range(3))
    frame = Frame(None, (Gossip(()),))
    sealed = close(origin, to, frame)
    assert opened(origin, to, sealed) == frame
    assert opened(relay, to, sealed) is None
    assert opened(origin, relay, sealed) is None
    assert opened(origin, to, b"\xc1") is None
