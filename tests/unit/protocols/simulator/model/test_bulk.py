"""Pretended fetches, between two stores and without a world."""

from __future__ import annotations

from random import Random

from dflow_protocols.events import Event, Fetch, FetchAdvanced, Fetched, FetchFailed
from dflow_protocols.names import CHUNK_BYTES, NodeId, RunId, ShardId, ShardRef
from dflow_protocols.simulator.model.bulk import BulkLane
from dflow_protocols.simulator.model.network import Lanes, Network
from dflow_protocols.simulator.model.schedule import Life, Schedule
from dflow_protocols.simulator.model.store import Store

RUN = RunId("ab" * 16)
SHARD = ShardRef(ShardId("d" * 64), 3 * CHUNK_BYTES)
ME, A, B = NodeId("me"), NodeId("a"), NodeId("b")


class Reader:
    """One node's lane, and the stores of those that it can reach."""

    def __init__(self, grant: bool = True) -> None:
        self.schedule, self.got, self.store = Schedule(), list[Event](), Store()
        self.reached: dict[NodeId, Store] = {}
        life = Life(self.schedule, Random(1), self.got.append)
        self.lane = BulkLane(
            life, self.store, Lanes(ME, life, Network(Random(1))), self.reached.get, lambda asked: grant
        )

    def fetch(self, *holders: NodeId) -> list[Event]:
        self.lane.fetch(Fetch(RUN, SHARD, 0, 3, holders))
        self.schedule.run(10.0)
        return self.got


def holding(first: int = 0, end: int = 3) -> Store:
    store = Store()
    store.put(RUN, SHARD, first, end)
    return store


def test_a_fetch_says_how_far_it_is_and_when_it_has_all() -> None:
    """A copy that moves is not a copy that stalls."""
    reader = Reader()
    reader.reached[A] = holding()
    advanced = FetchAdvanced(RUN, SHARD.id)
    assert reader.fetch(A) == [advanced, advanced, Fetched(RUN, SHARD.id, 0, 3)]
    assert reader.store.has(SHARD)
    assert reader.lane.fetched_bytes[SHARD.id] == 3 * CHUNK_BYTES


def test_who_has_it_not_and_who_is_silent_are_told_apart_and_what_came_is_kept() -> None:
    """One is forgotten as a holder, the other one only doubted."""
    reader = Reader()
    reader.reached[A] = holding(0, 2)
    assert reader.fetch(A, B)[-1] == FetchFailed(RUN, SHARD.id, 0, 3, (A,), (B,))
    assert reader.store.has(SHARD, 0, 2)
    reader.reached[B] = holding()
    assert reader.fetch(B)[-1] == Fetched(RUN, SHARD.id, 0, 3)
    assert reader.lane.fetched_bytes[SHARD.id] == 3 * CHUNK_BYTES


def test_a_fetch_for_which_there_is_no_room_blames_nobody() -> None:
    """It is tried again later, of the same holders."""
    reader = Reader(grant=False)
    assert reader.fetch(A) == [FetchFailed(RUN, SHARD.id, 0, 3, (), ())]


def test_a_fetch_that_was_given_up_tells_nothing() -> None:
    """An answer would revive a shard that was dropped."""
    reader = Reader()
    reader.reached[A] = holding()
    reader.lane.fetch(Fetch(RUN, SHARD, 0, 3, (A,)))
    reader.lane.give_up(RUN, SHARD.id)
    reader.schedule.run(10.0)
    assert reader.got == []
