"""The bulk lane's own thread: what it does to links between two messages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from math import inf

from dflow_protocols.names import NodeId
from dflow_protocols.wire.bulk import KEY_BYTES, TOKEN_BYTES
from dflowd.transport.aead import Payload
from dflowd.transport.bulk import BulkLane
from tests.support.until import until

HOLDER, FETCHER = NodeId("01" * 16), NodeId("02" * 16)
TOKEN, KEY = bytes(TOKEN_BYTES), bytes(KEY_BYTES)
CHUNK = bytes(100_000)
DEADLINE_S = 20.0


class Party:
    """One end of a lane: it answers each ask with a chunk, and does once what a test wants at the end of a turn."""

    def __init__(self, me: NodeId) -> None:
        self.lane = BulkLane(me, "encrypted")
        self.address = self.lane.bind("tcp://127.0.0.1:0")
        self.answers: list[bytes] = []
        self.faults: list[Exception] = []
        self.met: list[NodeId] = []
        self.at_end_of_turn: Callable[[], None] = lambda: None
        self.lane.start(self)

    def on_request(self, peer: NodeId, link: bytes, head: bytes) -> None:
        self.lane.answer(peer, link, head, [memoryview(CHUNK)])

    def on_answer(self, peer: NodeId, head: bytes, payload: Payload) -> None:
        self.answers.append(head)

    def on_refused(self, peer: NodeId, token: bytes, address: str) -> None: ...

    def on_stranger(self, peer: str, name: str, why: str) -> None: ...

    def on_short_path(self, peer: NodeId) -> None: ...

    def on_short_peer(self, peer: NodeId) -> None:
        self.met.append(peer)

    def on_outdated(self, peer: NodeId, token: bytes) -> None: ...

    def on_lost_link(self, peer: NodeId) -> None: ...

    def on_fault(self, error: Exception) -> None:
        self.faults.append(error)

    def on_turn(self) -> float:
        self.at_end_of_turn()
        return inf


def test_a_link_may_be_hung_up_whatever_has_come_by_it() -> None:
    """libzmq takes the first part of a message when it is asked whether one is there, and ends the process where the
    link of the rest is cut then: a daemon died of it on a network that loses packets."""
    holder, fetcher = Party(HOLDER), Party(FETCHER)
    try:
        holder.lane.call(partial(holder.lane.admit, FETCHER, TOKEN, KEY))
        has_hung_up = threading.Event()

        def hang_up() -> None:
            fetcher.lane.hang_up(HOLDER)
            has_hung_up.set()

        def hang_up_once_it_came() -> None:
            if fetcher.lane.received_from(HOLDER):
                until(lambda: fetcher.lane.received_from(HOLDER) > len(CHUNK), DEADLINE_S)
                fetcher.at_end_of_turn = lambda: None
                fetcher.lane.call(hang_up)
            else:
                fetcher.lane.call(lambda: None)  # one more turn

        def ask() -> None:
            fetcher.lane.dial(HOLDER, holder.address, TOKEN, KEY)
            fetcher.lane.request(HOLDER, b"first")
            fetcher.at_end_of_turn = hang_up_once_it_came

        fetcher.lane.call(ask)
        assert has_hung_up.wait(DEADLINE_S)
        assert not fetcher.faults
    finally:
        fetcher.lane.close()
        holder.lane.close()


def test_who_keeps_to_short_packets_since_another_does_says_of_whom() -> None:
    """Its shards come slower from then on, and nothing is wrong with its own paths."""
    holder, fetcher = Party(HOLDER), Party(FETCHER)
    try:
        holder.lane.call(holder.lane._gate.shorten)
        holder.lane.call(partial(holder.lane.admit, FETCHER, TOKEN, KEY))

        def ask() -> None:
            fetcher.lane.dial(HOLDER, holder.address, TOKEN, KEY)
            fetcher.lane.request(HOLDER, b"first")

        for turn in (threading.Event(), threading.Event()):  # a whole one, in which the listener is told
            holder.lane.call(turn.set)
            assert turn.wait(DEADLINE_S)
        fetcher.lane.call(ask)
        until(lambda: fetcher.answers == [b"first"], DEADLINE_S)
        until(lambda: fetcher.met == [HOLDER], DEADLINE_S)
    finally:
        fetcher.lane.close()
        holder.lane.close()


def test_a_fault_costs_no_other_call_its_turn() -> None:
    """Each is a fetch, an admission or a removal of another peer, which may be the last one for long."""
    party = Party(HOLDER)
    try:
        may_go_on, is_called = threading.Event(), threading.Event()

        def fail() -> None:
            raise ValueError("of this call alone")

        def wait() -> None:
            may_go_on.wait(DEADLINE_S)

        party.lane.call(wait)
        party.lane.call(fail)
        party.lane.call(is_called.set)
        may_go_on.set()
        assert is_called.wait(DEADLINE_S)
        assert len(party.faults) == 1
    finally:
        party.lane.close()
