"""Brings shards here from the nodes that hold them, and hands ours out: drives `transfer` over the bulk lane.

Owns sessions with holders and the way of chunks into the store. The public methods are for the loop's thread; what
begins with `on_`, except `on_message`, is called in the lane's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TypeAlias

from blake3 import blake3

from dflow_protocols.events import Fetch, FetchAdvanced, Fetched, FetchFailed, Report, Tick
from dflow_protocols.names import NodeId, RunId, ShardId, chunk_count, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.shards.transfer import (
    BytesCame,
    ChunkCame,
    CopiersMet,
    CopierTold,
    Distrust,
    Dropped,
    HashesCame,
    HolderGone,
    HolderLacks,
    KeepHashes,
    LinkRenewed,
    SendAsk,
    TransferEvent,
    Transfers,
    Wanted,
)
from dflow_protocols.wire.bulk import (
    KEY_BYTES,
    TOKEN_BYTES,
    Copiers,
    Has,
    Lacks,
    Piece,
    SessionGone,
    SessionOffer,
    SessionReady,
    Told,
    pack_asks,
    unpack_answers,
)
from dflow_protocols.wire.fields import WireError
from dflow_protocols.work import Product
from dflowd.process.host import Host
from dflowd.process.tally import Tally
from dflowd.transport.aead import OpenChunk, Payload
from dflowd.transport.bulk import BulkLane
from dflowd.transport.links import SHORT_BYTES
from dflowd.transport.traffic import Traffic

from .holder import Holder
from .rates import Rates
from .room import Room
from .segment import Full, chunk_mask
from .serving import Files, Serving
from .store import Store

PATIENCE_S = 2.0  # a holder that says nothing for so long is passed over; near the time in which a death is noticed
LOOK_S = 0.5  # between two looks whether parts of chunks came: within the shortest suspicion time
TELL_S = 0.1  # between two words that fetches go on: well within LOOK_S
LENT_CHECK_S = 0.01  # how soon memory that libzmq has sent is noticed to be free


@dataclass(frozen=True, slots=True)
class Silent:
    """A holder has said nothing for a while to what it was asked."""

    holder: NodeId


ExchangeEvent: TypeAlias = Fetched | FetchFailed | FetchAdvanced
SessionMessage: TypeAlias = SessionOffer | SessionReady | SessionGone
News: TypeAlias = ExchangeEvent | Report | Distrust | Silent | tuple[NodeId, SessionMessage]


class Exchange:
    """All fetches of this node, and its answers to those of others."""

    def __init__(
        self,
        host: Host,
        store: Store,
        room: Room,
        lane: BulkLane,
        tell: Callable[[NodeId, SessionMessage], object],
        patience_s: float = PATIENCE_S,
        files: Files | None = None,
        doubt: Callable[[NodeId], object] = lambda _: None,
    ) -> None:
        """`tell` sends a message over the control lane, on the loop. `files`: served beside the store's shards. `doubt`
        hears, on the loop, of a holder that said nothing. Starts the bulk lane."""
        self._host, self._store, self._room, self._lane, self._tell = host, store, room, lane, tell
        self._doubt = doubt
        self._transfers = Transfers(patience_s, lane.me)
        self._serving = Serving(store, lane, files)
        self._listeners: dict[RunId, Callable[[ExchangeEvent], None]] = {}
        self._holders: dict[NodeId, Holder] = {}
        self._to_ask: dict[NodeId, None] = {}  # holders for which asks may wait
        self._rates = Rates()
        self._tally, self._full = Tally(), Tally()  # the first is the lane's, the second the loop's
        self._news: list[News] = []
        self._look_at = inf  # when parts of chunks are looked for
        self._tick_at = inf  # when patience with a holder may have ended
        self._advanced: dict[ShardId, None] = {}  # of which chunks came, and nobody was told yet
        self._tell_at = 0.0  # when somebody may be
        lane.start(self)

    # For the loop -------------------------------------------------------------------------------------------------

    def add_peer(self, peer: NodeId, address: str) -> None:
        """A member's bulk address (`tcp://HOST:PORT`), newly learnt or changed."""
        self._lane.call(partial(self._set_address, peer, address))

    def listen(self, run: RunId, listener: Callable[[ExchangeEvent], None]) -> None:
        """What comes of fetches of this run is told to `listener`, and not to the node."""
        self._listeners[run] = listener

    def _post(self, event: ExchangeEvent) -> None:
        self._listeners.get(event.run, self._host.post)(event)

    def fetch(self, asked: Fetch) -> None:
        """Bring chunks into the store. Answered on the loop by Fetched, soon if they are here, or by FetchFailed: if
        it names nobody, there was no holder to ask or no room, and a report says so.

        Asked again, it goes on, with the new holders too. The memory stays granted to the run until it is dropped.
        """
        assert 0 <= asked.first <= asked.end <= chunk_count(asked.ref.nbytes), "chunks outside of the shard"
        priority = Priority(asked.run, asked.step, asked.product)
        self._room.fetch(priority, asked.ref, asked.first, asked.end, partial(self._begin, asked))

    def _begin(self, asked: Fetch, present: int | Full) -> None:
        run, shard, first, end = asked.run, asked.ref.id, asked.first, asked.end
        if isinstance(present, Full):
            if self._full.add(time.monotonic(), run):
                fields = {"run": run, "why": str(present)}
                self._host.loop.call_soon(self._host.report, Report("shards.full", fields, "warning"))
            self._host.loop.call_soon(self._post, FetchFailed(run, shard, first, end, (), ()))
            return
        wanted = chunk_mask(first, end)
        if present & wanted == wanted or self._take_along(asked):
            self._host.loop.call_soon(self._post, Fetched(run, shard, first, end))
            return
        is_copy = asked.product is Product.STATE and (first, end) == (0, chunk_count(asked.ref.nbytes))
        event = Wanted(run, asked.ref, first, end, asked.holders, present, self._store.hashes(shard), is_copy)
        self._lane.call(partial(self._handle, event))

    def _take_along(self, asked: Fetch) -> bool:
        """Keep what came along with word of a shard, if these are its bytes: then nobody need be asked for them."""
        shard, hashes = hash_shard(asked.came) if asked.came else (None, ())
        return shard == asked.ref.id and self._store.fill(shard, asked.came, hashes)

    def drop(self, run: RunId, shards: Sequence[ShardId]) -> None:
        """Free these for `run`, and give up fetching them unless it asks again in this turn of the loop."""
        self._room.drop(run, shards)
        self._host.loop.call_soon(self._cancel_unwanted, run, tuple(shards))

    def on_message(self, source: NodeId, message: SessionMessage) -> None:
        """A session message of a member came over the control lane."""
        match message:
            case SessionOffer(token, key):
                if len(token) != TOKEN_BYTES or len(key) != KEY_BYTES:
                    self._host.report(Report("wire.refused", {"peer": source, "error": "not a session"}, "warning"))
                else:
                    self._lane.call(partial(self._admit, source, token, key))
            case SessionReady(token):
                self._lane.call(partial(self._make_ready, source, token))
            case SessionGone(token):
                self._lane.call(partial(self._lose_session, source, token))

    def hang_up(self, peer: NodeId) -> None:
        """A member that this node cannot talk to: what was asked of it will not come."""
        self._lane.call(partial(self._lose_holder, peer))

    def remove_peer(self, peer: NodeId) -> None:
        """A peer that may not speak to this node any more: nothing is fetched from it, nor served to it."""
        self._lane.call(partial(self._expel, peer))

    def traffic(self) -> dict[NodeId, Traffic]:
        """Bytes on the bulk lane since the start, by peer."""
        return self._lane.traffic.snapshot()

    def close(self) -> None:
        self._lane.close()

    def _cancel_unwanted(self, run: RunId, shards: tuple[ShardId, ...]) -> None:
        for shard in shards:
            if not self._store.is_wanted(run, shard):
                self._lane.call(partial(self._handle, Dropped(run, shard)))

    def _deliver(self, news: list[News]) -> None:
        for item in news:
            if isinstance(item, ExchangeEvent):
                self._post(item)
            elif isinstance(item, Report):
                self._host.report(item)
            elif isinstance(item, Distrust | Silent):
                self._doubt(item.holder)
            else:
                self._tell(*item)

    # What the lane hears ------------------------------------------------------------------------------------------

    def on_request(self, peer: NodeId, link: bytes, head: bytes) -> None:
        report = self._serving.answer(peer, link, head)
        if report is not None:
            self._report(peer, report)

    def on_answer(self, peer: NodeId, head: bytes, payload: Payload) -> None:
        try:
            answers = unpack_answers(head)
        except WireError as error:
            self._report(peer, Report("wire.refused", {"peer": peer, "error": str(error)}, "warning"))
            return
        for answer in answers:
            match answer:
                case Piece():
                    self._take_chunk(peer, answer, payload.next(answer.nbytes))
                case Told(ticket, hashes):
                    self._handle(HashesCame(peer, ticket, hashes))
                case Lacks(ticket, first, end):
                    self._handle(HolderLacks(peer, ticket, first, end))
                case Copiers(shard, nodes):
                    self._handle(CopiersMet(peer, shard, tuple(filter(self._is_reached, nodes))))
                case Has(shard, present):
                    self._handle(CopierTold(peer, shard, present))
        if not self._transfers.is_asked(peer):
            self._rates.idle(peer)
            self._holder(peer).rest()

    def on_refused(self, peer: NodeId, token: bytes, address: str) -> None:
        """`peer` is told, in case it was it. By address, so that a stranger does not use up what it may be told."""
        if self._tally.add(time.monotonic(), ("refused", peer, address)):
            self._news.append((peer, SessionGone(token)))

    def on_stranger(self, peer: str, name: str, why: str) -> None:
        self._report(peer, Report(name, {"peer": peer, "why": why}, "warning"))

    def on_short_path(self, peer: NodeId) -> None:
        why = f"segments have at most {SHORT_BYTES} bytes now"
        self._report(peer, Report("transport.short_only", {"peer": peer, "why": why}, "warning"))

    def on_short_peer(self, peer: NodeId) -> None:
        self._report(peer, Report("transport.short_too", {"peer": peer}))

    def on_outdated(self, peer: NodeId, token: bytes) -> None:
        self._news.append((peer, SessionGone(token)))

    def on_lost_link(self, peer: NodeId) -> None:
        self._lose_holder(peer)

    def on_fault(self, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        self._report(NodeId(""), Report("transport.fault", {"lane": "bulk", "error": why}, "error"))
        self._publish()

    def on_turn(self) -> float:
        now = time.monotonic()
        if now >= self._look_at:
            self._note_bytes()
        if now >= self._tick_at:
            self._handle(Tick())
        due = min(self._send_asks(now), self._look_again(now), self._tell_advanced(now), self._serving.tell_grown())
        if self._serving.take_back():
            due = min(due, now + LENT_CHECK_S)
        self._publish()
        self._tick_at = self._transfers.deadline
        return min(due, self._tick_at)

    def _look_again(self, now: float) -> float:
        """When to look next for parts of chunks; never while nothing is asked of anybody."""
        if not self._transfers.asked():
            self._look_at = inf
        elif now >= self._look_at or self._look_at == inf:
            self._look_at = now + LOOK_S
        return self._look_at

    def _tell_advanced(self, now: float) -> float:
        """Say of which fetches chunks came: of the first one at once. When it is to be said next."""
        if not self._advanced:
            return inf
        if now < self._tell_at:
            return self._tell_at
        for shard in self._advanced:
            self._news += [FetchAdvanced(run, shard) for run in self._transfers.wanting(shard)]
        self._advanced.clear()
        self._tell_at = now + TELL_S
        return inf

    def _note_bytes(self) -> None:
        """A holder of which bytes came is not silent, though no chunk is whole yet: the network is slow. Whether one
        that is silent can be reached at all is found out before patience with it ends."""
        for peer in self._transfers.asked():
            if self._holder(peer).note_received(self._lane.received_from(peer)):
                self._handle(BytesCame(peer))
        self._news += [Silent(peer) for peer in self._transfers.silent(time.monotonic(), LOOK_S)]

    # Chunks -------------------------------------------------------------------------------------------------------

    def _take_chunk(self, peer: NodeId, piece: Piece, open_chunk: OpenChunk) -> None:
        ref = self._transfers.expects(peer, piece.ticket, piece.index)
        if ref is None:
            return
        report = self._rates.came(time.monotonic(), peer, piece.nbytes)
        if report is not None:
            self._news.append(report)
        place = self._store.landing(ref.id, piece.index)
        if place is None:  # dropped, or an engine made the same
            is_good = self._store.has_range(ref.id, piece.index, piece.index + 1)
            if is_good:
                self._handle(ChunkCame(peer, piece.ticket, piece.index, True))
            for run in () if is_good else self._transfers.wanting(ref.id):
                self._handle(Dropped(run, ref.id))
            return
        is_good = is_kept = False
        try:
            is_good = open_chunk(place) and self._transfers.verifies(ref.id, piece.index, blake3(place).digest())
        finally:
            place.release()
            is_kept = self._store.landed(ref.id, piece.index, is_good)
        if is_good and not is_kept:  # as if it had never come: it cannot be kept here
            self._report(NodeId(""), Report("shards.disk_failed", {"shard": ref.id}, "error"))
            self._handle(HolderLacks(peer, piece.ticket, piece.index, piece.index + 1))
            return
        if is_good:
            self._serving.grow(ref.id)
        if is_good and chunk_count(ref.nbytes) > 1:
            self._advanced[ref.id] = None
        self._handle(ChunkCame(peer, piece.ticket, piece.index, is_good))

    def _handle(self, event: TransferEvent) -> None:
        for action in self._transfers.handle(time.monotonic(), event):
            match action:
                case SendAsk(holder, ask):
                    self._holder(holder).waiting.append(ask)
                    self._to_ask[holder] = None
                case KeepHashes(shard, hashes):
                    self._store.set_hashes(shard, hashes)
                case Distrust(holder):
                    self._forget_session(holder)
                    self._news.append(action)
                case _:
                    self._news.append(action)

    def _send_asks(self, now: float) -> float:
        """Send what waits, or see to a session first. Returns when an offer is due again."""
        due = inf
        for peer in list(self._to_ask):
            holder = self._holders[peer]
            if holder.is_dialled and holder.waiting:
                if not holder.is_awaited:
                    holder.ask(self._lane.received_from(peer))
                self._lane.request(peer, pack_asks(holder.waiting))
                self._rates.asked(now, peer)
                holder.waiting.clear()
            holder.keep_asks(self._transfers.wanting)
            if not holder.waiting:
                del self._to_ask[peer]
            elif not holder.is_ready:
                if holder.offer is None or now >= holder.offer_again_at:
                    self._news.append((peer, holder.offer_session(now)))
                due = min(due, holder.offer_again_at)
        return due

    # Sessions -----------------------------------------------------------------------------------------------------

    def _holder(self, peer: NodeId) -> Holder:
        known = self._holders.get(peer)
        if known is None:
            known = self._holders[peer] = Holder()
        return known

    def _is_reached(self, peer: NodeId) -> bool:
        """Whether it is a member that says where to dial it."""
        return peer in self._holders and bool(self._holders[peer].address)

    def _admit(self, peer: NodeId, token: bytes, key: bytes) -> None:
        self._lane.admit(peer, token, key)
        self._news.append((peer, SessionReady(token)))

    def _make_ready(self, peer: NodeId, token: bytes) -> None:
        holder = self._holder(peer)
        if holder.accepts(token) and not holder.is_ready:
            holder.ready()
            self._dial(peer, holder)

    def _set_address(self, peer: NodeId, address: str) -> None:
        holder = self._holder(peer)
        if holder.address == address:
            return
        was_dialled = holder.is_dialled
        holder.move(address)
        if was_dialled:  # it moved, so it restarted, and does not know the session any more
            self._forget_session(peer)
            self._handle(LinkRenewed(peer))
        else:
            self._dial(peer, holder)

    def _dial(self, peer: NodeId, holder: Holder) -> None:
        if not holder.dial(self._lane, peer):
            why = f"its bulk address {holder.address!r} is none"
            self._report(peer, Report("transport.refused", {"peer": peer, "why": why}, "warning"))

    def _lose_session(self, peer: NodeId, token: bytes) -> None:
        holder = self._holder(peer)
        if holder.accepts(token) and holder.is_dialled:
            self._forget_session(peer)
            self._handle(LinkRenewed(peer))

    def _forget_session(self, peer: NodeId) -> None:
        self._holder(peer).forget_session()
        self._rates.idle(peer)
        self._lane.hang_up(peer)

    def _expel(self, peer: NodeId) -> None:
        self._lane.expel(peer)
        if peer in self._holders:
            self._lose_holder(peer)

    def _lose_holder(self, peer: NodeId) -> None:
        self._forget_session(peer)
        self._handle(HolderGone(peer))

    # Reports ------------------------------------------------------------------------------------------------------

    def _report(self, peer: str, report: Report) -> None:
        count = self._tally.add(time.monotonic(), (report.name, peer))
        if count:
            self._news.append(Report(report.name, {**report.fields, "count": count}, report.level))

    def _publish(self) -> None:
        if self._news:
            news, self._news = self._news, []
            with contextlib.suppress(RuntimeError):  # the loop has ended before the lane
                self._host.loop.call_soon_threadsafe(self._deliver, news)
