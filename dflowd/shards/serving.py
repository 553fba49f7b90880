"""The holder's side of a fetch: asks in, answers out, straight from the store.

Owns what is lent to the lane while it is being sent. Works in the bulk lane's thread.
"""

from __future__ import annotations

import time
from typing import Protocol, TypeAlias

import zmq

from dflow_protocols.events import Report
from dflow_protocols.names import NodeId, ShardId
from dflow_protocols.shards.swarm import Audience
from dflow_protocols.shards.transfer import RUN_CHUNKS, WINDOW_CHUNKS
from dflow_protocols.wire.bulk import (
    NODE_BYTES,
    Answer,
    Ask,
    Copiers,
    Has,
    Lacks,
    Piece,
    Told,
    pack_answers,
    unpack_asks,
)
from dflow_protocols.wire.fields import WireError
from dflowd.transport.bulk import COPIED_BYTES, BulkLane

from .store import Store

HEAD_BYTES = 512 << 10  # of answers, then the message is sent
MOST_CHUNKS = 2 * WINDOW_CHUNKS  # sent for one message of asks; an honest fetcher has credit for half of it

Loan: TypeAlias = tuple[zmq.MessageTracker, list[ShardId]]
"""Shards that stay pinned until what is tracked has been sent."""


class Content(Protocol):
    """A file's bytes, in chunks."""

    @property
    def hashes(self) -> tuple[bytes, ...]: ...
    def chunk(self, index: int) -> bytes | None: ...


class Files(Protocol):
    """Files of this host that are served like shards, by what they hold. Safe for threads."""

    def find(self, shard: ShardId) -> Content | None: ...


class Serving:
    """Answers in the order of the asks: the fetcher takes a gap for a loss."""

    def __init__(self, store: Store, lane: BulkLane, files: Files | None = None) -> None:
        self._store, self._lane, self._files = store, lane, files
        self._lent: list[Loan] = []
        self._audience = Audience()
        self._links: dict[NodeId, bytes] = {}  # by which one that copies asked last

    def answer(self, peer: NodeId, link: bytes, head: bytes) -> Report | None:
        """Answer a message of asks. Returns a report if it was none."""
        try:
            asks = unpack_asks(head)
        except WireError as error:
            return Report("wire.refused", {"peer": peer, "error": str(error)}, "warning")
        reply = _Reply(self._store, self._lane, peer, link)
        try:
            for ask in asks:
                if reply.is_over:
                    break
                if ask.is_copy:
                    self._links[peer] = link
                    self._tell_copiers(reply, peer, ask)
                if ask.first < ask.end:
                    self._answer_one(reply, ask)
            reply.flush()
        finally:
            self._lent.append(reply.end())
        return None

    def grow(self, shard: ShardId) -> None:
        """One more chunk of it is here."""
        self._audience.grow(time.monotonic(), shard)

    def tell_grown(self) -> float:
        """Tell those who copy from here what came meanwhile, if it is time for that. Returns when it is again."""
        for shard, peers in self._audience.take_grown(time.monotonic()):
            has = Has(shard, self._present(shard))
            for peer in peers:
                self._lane.answer(peer, self._links[peer], pack_answers([has]))
        return self._audience.deadline

    def take_back(self) -> bool:
        """Unpin what libzmq has sent; whether some is still on its way."""
        lent, self._lent = self._lent, []
        for tracker, shards in lent:
            if not tracker.done:
                self._lent.append((tracker, shards))
                continue
            for shard in shards:
                self._store.unpin(shard)
        return bool(self._lent)

    def _tell_copiers(self, reply: _Reply, peer: NodeId, ask: Ask) -> None:
        """No books are kept of who copies what is not here and does not come: a peer may name any number of shards."""
        is_here = self._store.knows(ask.shard)
        others = self._audience.ask(time.monotonic(), ask.shard, peer) if is_here else None
        if others is not None:
            reply.add(Copiers(ask.shard, others), NODE_BYTES * len(others))
        if ask.first == ask.end:
            present = self._present(ask.shard)
            reply.add(Has(ask.shard, present), (present or 0).bit_length() // 8)

    def _present(self, shard: ShardId) -> int | None:
        """Bitmap of what is here; None if nothing of it is, or comes."""
        return self._store.present(shard) if self._store.knows(shard) else None

    def _answer_one(self, reply: _Reply, ask: Ask) -> None:
        try:
            reply.pin(ask.shard)
        except KeyError:  # it is not here, or is dropped in this moment
            self._answer_from_file(reply, ask)
        else:
            self._answer_pinned(reply, ask)

    def _answer_from_file(self, reply: _Reply, ask: Ask) -> None:
        content = self._files.find(ask.shard) if self._files is not None else None
        if content is None or ask.end > len(content.hashes) or ask.end - ask.first > RUN_CHUNKS:
            reply.add(Lacks(ask.ticket, ask.first, ask.end), 0)
            return
        if ask.with_hashes:
            reply.add(Told(ask.ticket, content.hashes), 32 * len(content.hashes))
        for index in range(ask.first, ask.end):
            if reply.is_over:
                return
            chunk = content.chunk(index)
            if chunk is None:
                reply.add(Lacks(ask.ticket, index, index + 1), 0)
            else:
                reply.add_chunk(ask.ticket, index, memoryview(chunk))

    def _answer_pinned(self, reply: _Reply, ask: Ask) -> None:
        present = self._store.present(ask.shard)
        hashes = self._store.hashes(ask.shard) if ask.with_hashes else ()
        if not present or hashes is None or ask.end - ask.first > RUN_CHUNKS:
            reply.add(Lacks(ask.ticket, ask.first, ask.end), 0)
            return
        if ask.with_hashes:
            reply.add(Told(ask.ticket, hashes), 32 * len(hashes))
        for index in range(ask.first, ask.end):
            if reply.is_over:
                return
            if present >> index & 1:
                self._send_chunk(reply, ask, index)
            else:
                reply.add(Lacks(ask.ticket, index, index + 1), 0)

    def _send_chunk(self, reply: _Reply, ask: Ask, index: int) -> None:
        try:
            chunk = self._store.view(ask.shard, index, index + 1)
        except (KeyError, OSError):  # spoilt in this moment, or on a disk that fails
            reply.add(Lacks(ask.ticket, index, index + 1), 0)
        else:
            reply.add_chunk(ask.ticket, index, chunk)


class _Reply:
    """Gathers answers and chunks, so that many small shards take one message. What it pins stays until its end."""

    def __init__(self, store: Store, lane: BulkLane, peer: NodeId, link: bytes) -> None:
        self._store, self._lane, self._peer, self._link = store, lane, peer, link
        self._answers: list[Answer] = []
        self._chunks: list[memoryview] = []
        self._head_bytes = self._payload_bytes = 0
        self._chunks_left = MOST_CHUNKS
        self._pinned: list[ShardId] = []
        self._trackers: list[zmq.MessageTracker] = []

    @property
    def is_over(self) -> bool:
        """Whether the fetcher asked for more than its credit: others wait while the rest is sealed."""
        return self._chunks_left <= 0

    def pin(self, shard: ShardId) -> None:
        """Raises KeyError."""
        self._store.pin(shard)
        self._pinned.append(shard)

    def add(self, answer: Answer, nbytes: int) -> None:
        if self._head_bytes + nbytes > HEAD_BYTES:
            self.flush()
        self._answers.append(answer)
        self._head_bytes += nbytes

    def add_chunk(self, ticket: int, index: int, chunk: memoryview) -> None:
        if self._chunks and self._payload_bytes + len(chunk) > COPIED_BYTES:
            self.flush()  # the fetcher opens them while more are sealed
        self._answers.append(Piece(ticket, index, len(chunk)))
        self._chunks.append(chunk)
        self._payload_bytes += len(chunk)
        self._chunks_left -= 1

    def flush(self) -> None:
        if not self._answers:
            return
        tracker = self._lane.answer(self._peer, self._link, pack_answers(self._answers), self._chunks)
        if tracker is not None:
            self._trackers.append(tracker)
        self._answers, self._chunks = [], []
        self._head_bytes = self._payload_bytes = 0

    def end(self) -> Loan:
        return zmq.MessageTracker(*self._trackers), self._pinned
