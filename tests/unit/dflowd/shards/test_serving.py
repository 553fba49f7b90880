"""What a peer may ask of a node that serves."""

from __future__ import annotations

import zmq

from dflow_protocols.names import CHUNK_BYTES, NodeId, RunId, ShardId, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.wire.bulk import Answer, Ask, Copiers, Has, pack_asks, unpack_answers
from dflowd.shards.serving import Serving
from dflowd.shards.store import Store
from dflowd.transport.bulk import BulkLane

ONE, OTHER = NodeId("1" * 32), NodeId("2" * 32)
DATA = b"parameters"


class Heard(BulkLane):
    """A lane that keeps what it is to send."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def answer(self, peer: NodeId, link: bytes, head: bytes, chunk: memoryview | None) -> zmq.MessageTracker | None:
        self.answers += unpack_answers(head)
        return None


def told_to_the_second(store: Store, shard: ShardId) -> list[Answer]:
    """Two say one after the other that they copy it, and ask for nothing."""
    lane = Heard()
    serving = Serving(store, lane)
    serving.answer(ONE, b"link1", pack_asks([Ask(0, shard, 0, 0, with_hashes=False, is_copy=True)]))
    lane.answers.clear()
    serving.answer(OTHER, b"link2", pack_asks([Ask(0, shard, 0, 0, with_hashes=False, is_copy=True)]))
    return lane.answers


def test_books_are_kept_of_who_copies_what_is_here_and_of_nothing_else() -> None:
    """A peer that asks for shards that nobody has, thousands in a message, could fill the memory with their names."""
    store = Store(4 * CHUNK_BYTES, "n0")
    segment = store.grant(Priority(RunId("a" * 32), 0), len(DATA))
    segment.view()[:] = DATA
    shard, hashes = hash_shard(DATA)
    store.seal(segment, shard, len(DATA), hashes)
    assert told_to_the_second(store, shard) == [Copiers(shard, (ONE,)), Has(shard, 1)]
    unknown = ShardId("f" * 64)
    assert told_to_the_second(store, unknown) == [Has(unknown, None)]
    store.close()
