"""What a peer may ask of a node that serves."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from dflow_protocols.names import CHUNK_BYTES, NodeId, RunId, ShardId, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.shards.transfer import WINDOW_CHUNKS
from dflow_protocols.wire.bulk import Answer, Ask, Copiers, Has, Piece, pack_asks, unpack_answers
from dflowd.shards.serving import Serving
from dflowd.shards.store import Store
from dflowd.transport.bulk import COPIED_BYTES, BulkLane

RUN = RunId("a" * 32)
ONE, OTHER = NodeId("1" * 32), NodeId("2" * 32)
DATA = b"parameters"


class Heard(BulkLane):
    """A lane that keeps what it is to send."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.payloads: list[list[bytes]] = []

    def answer(
        self, peer: NodeId, link: bytes, head: bytes, chunks: Sequence[memoryview] = ()
    ) -> zmq.MessageTracker | None:
        self.answers += unpack_answers(head)
        self.payloads.append(list(map(bytes, chunks)))
        return None


def put(store: Store, data: bytes) -> ShardId:
    segment = store.grant(Priority(RUN, 0), len(data))
    segment.view()[:] = data
    shard, hashes = hash_shard(data)
    return store.seal(segment, shard, len(data), hashes).id


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
    shard = put(store, DATA)
    assert told_to_the_second(store, shard) == [Copiers(shard, (ONE,)), Has(shard, 1)]
    unknown = ShardId("f" * 64)
    assert told_to_the_second(store, unknown) == [Has(unknown, None)]
    store.close()


def test_small_shards_share_messages_in_the_order_of_the_asks() -> None:
    """What a message costs is shared by all that lies in it, and yet the first of many need not wait for the last."""
    store, lane = Store(4 * CHUNK_BYTES, "n0"), Heard()
    data = [bytes([number]) * (COPIED_BYTES // 3) for number in range(7)]
    shards = [put(store, each) for each in data]
    asks = [Ask(number, shard, 0, 1, with_hashes=False) for number, shard in enumerate(shards)]
    Serving(store, lane).answer(ONE, b"link1", pack_asks(asks))
    assert lane.payloads == [data[0:3], data[3:6], data[6:]]
    assert lane.answers == [Piece(number, 0, len(each)) for number, each in enumerate(data)]
    store.close()


def test_one_message_of_asks_brings_no_more_than_twice_the_credit() -> None:
    """Thousands of small chunks would be sealed while all others wait, and an honest fetcher never asks for so many."""
    store, lane = Store(4 * CHUNK_BYTES, "n0"), Heard()
    shard = put(store, DATA)
    asks = [Ask(number, shard, 0, 1, with_hashes=False) for number in range(4_000)]
    Serving(store, lane).answer(ONE, b"link1", pack_asks(asks))
    assert len(lane.answers) == 2 * WINDOW_CHUNKS
    store.close()


class Dropping(Heard):
    """A lane that notes what is pinned when an answer leaves, all being dropped by then."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.pinned = store, 0

    def answer(
        self, peer: NodeId, link: bytes, head: bytes, chunks: Sequence[memoryview] = ()
    ) -> zmq.MessageTracker | None:
        self.store.drop(RUN, [shard for shard, *_ in self.store.listing()])
        self.pinned = self.store.usage().pinned_count
        return super().answer(peer, link, head, chunks)


def test_what_is_dropped_while_an_answer_is_gathered_stays_until_it_has_left() -> None:
    """Its memory would be another shard's by then, and the fetcher take the holder for a liar."""
    store = Store(4 * CHUNK_BYTES, "n0")
    lane, shards = Dropping(store), [put(store, DATA), put(store, DATA + DATA)]
    serving = Serving(store, lane)
    asks = [Ask(number, shard, 0, 1, with_hashes=False) for number, shard in enumerate(shards)]
    serving.answer(ONE, b"link1", pack_asks(asks))
    assert lane.pinned == 2
    assert lane.payloads == [[DATA, DATA + DATA]]
    serving.take_back()
    assert store.usage().pinned_count == store.usage().shards_count == 0
    store.close()
