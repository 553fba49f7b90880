"""Fetching under credit-based flow control: which chunk is asked of which holder, and when a holder is given up.

Owns every fetch of one node: credit, ranges, several holders at once, verification against the shard's id. Knows
nothing of sockets, sealing or memory: who drives it stores a chunk, hashes it, and asks `verifies`. What several nodes
copy at once they get from each other as well: swarm.py.

A holder has credit for WINDOW_CHUNKS chunks over all fetches. It answers asks in the order in which they came, so an
answer proves that older asks still open were lost with their link, and their chunks are asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from typing import TypeAlias

from ..events import FetchAdvanced, Fetched, FetchFailed, Report, Tick
from ..names import NodeId, RunId, ShardId, ShardRef, chunk_count, shard_id
from ..wire.bulk import Ask
from .credit import Peer, Transfer, mask
from .swarm import MOST_COPIERS, allowed, starting_chunk

WINDOW_CHUNKS = 16  # asked of one holder and not yet there: 16 MiB hide 13 ms of round trip on a 10 Gbit/s link
RUN_CHUNKS = 8  # of one ask, so that two asks are under way and other fetches get their turn
REFILL_CHUNKS = 4  # of free credit, below which nothing is asked: else each chunk that came cost an ask of its own

assert RUN_CHUNKS <= WINDOW_CHUNKS // 2
assert REFILL_CHUNKS <= WINDOW_CHUNKS // 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run wants chunks [first, end) here. `present`: bitmap of verified ones; `hashes`: if they are known already."""

    run: RunId
    ref: ShardRef
    first: int
    end: int
    holders: tuple[NodeId, ...]
    present: int
    hashes: tuple[bytes, ...] | None
    is_copy: bool = False  # of all of it, so that others that copy it are met and given what is here


@dataclass(frozen=True, slots=True)
class HashesCame:
    holder: NodeId
    ticket: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ChunkCame:
    """A chunk came and was, or was not, what its hash says."""

    holder: NodeId
    ticket: int
    index: int
    is_good: bool


@dataclass(frozen=True, slots=True)
class BytesCame:
    """Part of a chunk came."""

    holder: NodeId


@dataclass(frozen=True, slots=True)
class HolderLacks:
    holder: NodeId
    ticket: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class CopiersMet:
    """A holder says who copies the shard from it, too."""

    holder: NodeId
    shard: ShardId
    copiers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CopierTold:
    """Which chunks another copier has, as a bitmap; None: it does not copy the shard any more, and has none."""

    copier: NodeId
    shard: ShardId
    present: int | None


@dataclass(frozen=True, slots=True)
class HolderGone:
    """The holder is dead, or what was asked of it will never be answered."""

    holder: NodeId


@dataclass(frozen=True, slots=True)
class LinkRenewed:
    """There is a new link to the holder; what was asked over the old one is lost."""

    holder: NodeId


@dataclass(frozen=True, slots=True)
class Dropped:
    """The run does not want the shard any more."""

    run: RunId
    shard: ShardId


TransferEvent: TypeAlias = (
    Wanted
    | HashesCame
    | ChunkCame
    | BytesCame
    | HolderLacks
    | CopiersMet
    | CopierTold
    | HolderGone
    | LinkRenewed
    | Dropped
    | Tick
)


@dataclass(frozen=True, slots=True)
class SendAsk:
    holder: NodeId
    ask: Ask


@dataclass(frozen=True, slots=True)
class KeepHashes:
    """These are the hashes of all chunks of the shard, checked against its id."""

    shard: ShardId
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Distrust:
    """The holder was silent for too long: its session is to be made anew before it is asked again."""

    holder: NodeId


TransferAction: TypeAlias = SendAsk | KeepHashes | Distrust | Fetched | FetchAdvanced | FetchFailed | Report


class Transfers:
    """All fetches of `me`. `patience_s`: how long a holder with open asks may say nothing at all."""

    def __init__(self, patience_s: float, me: NodeId) -> None:
        self._patience_s, self._me = patience_s, me
        self._transfers: dict[ShardId, Transfer] = {}
        self._peers: dict[NodeId, Peer] = {}

    @property
    def deadline(self) -> float:
        """When Tick is next due; infinite while nothing is asked of anyone."""
        return min((peer.since for peer in self._peers.values() if peer.tickets), default=inf) + self._patience_s

    def __len__(self) -> int:
        """How many shards are being fetched."""
        return len(self._transfers)

    def handle(self, now: float, event: TransferEvent) -> list[TransferAction]:
        match event:
            case Wanted():
                return self._want(now, event)
            case HashesCame(holder, ticket, hashes):
                return self._on_hashes(now, holder, ticket, hashes)
            case ChunkCame():
                return self._on_chunk(now, event)
            case BytesCame(holder):
                peer = self._peer(holder)
                peer.answer(now)
                shards = dict.fromkeys(ticket.shard for ticket in peer.tickets.values())
                return [FetchAdvanced(run, shard) for shard in shards for run in self.wanting(shard)]
            case HolderLacks(holder, ticket, first, end):
                return self._on_lack(now, holder, ticket, mask(first, end))
            case CopiersMet(holder, shard, copiers):
                return self._meet(holder, shard, copiers)
            case CopierTold(copier, shard, present):
                return self._on_copier(now, copier, shard, present)
            case HolderGone(holder):
                return self._give_up_holder(now, holder)
            case LinkRenewed(holder):
                return [*self._watch_again(holder), *self._lose(now, holder, list(self._peer(holder).tickets))]
            case Dropped(run, shard):
                return self._drop(now, run, shard)
            case Tick():
                late = self.silent(now, self._patience_s)
                return [action for holder in late for action in (Distrust(holder), *self._give_up_holder(now, holder))]

    def asked(self) -> list[NodeId]:
        """Holders with open asks."""
        return [holder for holder, peer in self._peers.items() if peer.tickets]

    def silent(self, now: float, for_s: float) -> list[NodeId]:
        """Holders with open asks that have said nothing for so long."""
        return [holder for holder in self.asked() if now >= self._peers[holder].since + for_s]

    def is_asked(self, holder: NodeId) -> bool:
        """Whether it has open asks."""
        peer = self._peers.get(holder)
        return peer is not None and bool(peer.tickets)

    def expects(self, holder: NodeId, ticket: int, index: int) -> ShardRef | None:
        """The shard of which this chunk was asked for under this ticket; None for what nobody waits for."""
        peer = self._peers.get(holder)
        known = peer.tickets.get(ticket) if peer else None
        if known is None or not known.open >> index & 1:
            return None
        return self._transfers[known.shard].ref

    def wanting(self, shard: ShardId) -> tuple[RunId, ...]:
        """The runs that a fetch of this shard goes on for."""
        transfer = self._transfers.get(shard)
        return tuple(dict.fromkeys(run for run, _, _ in transfer.wants)) if transfer else ()

    def verifies(self, shard: ShardId, index: int, digest: bytes) -> bool:
        """Whether a chunk with this BLAKE3 is the one that the shard's id names."""
        transfer = self._transfers[shard]
        if transfer.hashes is None:  # a shard of one chunk needs no list of hashes
            return chunk_count(transfer.ref.nbytes) == 1 and shard_id(transfer.ref.nbytes, (digest,)) == shard
        return transfer.hashes[index] == digest

    def check(self) -> None:
        """Assert that the books agree."""
        asked: dict[ShardId, int] = {}
        for peer in self._peers.values():
            assert peer.open_count == sum(ticket.open.bit_count() for ticket in peer.tickets.values()) <= WINDOW_CHUNKS
            for ticket in peer.tickets.values():
                assert ticket.open
                assert not asked.get(ticket.shard, 0) & ticket.open, "a chunk is asked of two"
                asked[ticket.shard] = asked.get(ticket.shard, 0) | ticket.open
        for shard, transfer in self._transfers.items():
            assert transfer.asked == asked.pop(shard, 0)
            assert transfer.needed, "a finished fetch goes on"
            assert transfer.asked or any(map(transfer.obtainable, transfer.sources)), "a fetch waits for nothing"
        assert not asked, "a ticket of no fetch"

    # Events -------------------------------------------------------------------------------------------------------

    def _want(self, now: float, event: Wanted) -> list[TransferAction]:
        shard = event.ref.id
        transfer = self._transfers.setdefault(shard, Transfer(event.ref, event.hashes))
        again = transfer.renew(event.present, event.hashes)
        transfer.want(event.run, event.first, event.end, event.holders)
        if event.is_copy:
            transfer.copy(starting_chunk(event.ref, self._me))
        kept = [KeepHashes(shard, transfer.hashes)] if again and transfer.hashes else []
        return [*kept, *self._complete(shard), *self._offer(now, shard)]

    def _on_hashes(self, now: float, holder: NodeId, ticket: int, hashes: tuple[bytes, ...]) -> list[TransferAction]:
        known = self._peer(holder).tickets.get(ticket)
        if known is None:
            return []
        actions = self._note_answer(now, holder, ticket)
        transfer = self._transfers[known.shard]
        if transfer.hashes is not None:
            return actions
        ref = transfer.ref
        if len(hashes) != chunk_count(ref.nbytes) or shard_id(ref.nbytes, hashes) != ref.id:
            return [*actions, *self._catch_lie(now, holder, ref.id)]
        transfer.learn_hashes(hashes)
        return [*actions, KeepHashes(ref.id, hashes)]

    def _on_chunk(self, now: float, event: ChunkCame) -> list[TransferAction]:
        holder, bit = event.holder, 1 << event.index
        known = self._peer(holder).tickets.get(event.ticket)
        if known is None or not known.open & bit:
            return []
        actions = self._note_answer(now, holder, event.ticket)
        if not event.is_good:
            return [*actions, *self._catch_lie(now, holder, known.shard)]
        self._close(holder, event.ticket, bit)
        transfer = self._transfers[known.shard]
        transfer.receive(bit)
        actions += self._complete(known.shard)
        if transfer.is_copy or not transfer.asked:  # else it is credit of this holder alone that is free again
            actions += self._offer(now, known.shard)
        return [*actions, *self._pump(now, holder)]

    def _on_lack(self, now: float, holder: NodeId, ticket: int, chunks: int) -> list[TransferAction]:
        known = self._peer(holder).tickets.get(ticket)
        if known is None:
            return []
        actions = self._note_answer(now, holder, ticket)
        self._transfers[known.shard].sources[holder].lack(chunks)
        self._close(holder, ticket, known.open & chunks)
        return [*actions, *self._offer(now, known.shard), *self._pump(now, holder)]

    def _meet(self, holder: NodeId, shard: ShardId, copiers: Sequence[NodeId]) -> list[TransferAction]:
        transfer = self._transfers.get(shard)
        if transfer is None or not transfer.is_copy or holder not in transfer.sources:
            return []
        room = MOST_COPIERS - sum(source.is_copier for source in transfer.sources.values())
        met = [copier for copier in copiers if copier not in transfer.sources and copier != self._me][: max(0, room)]
        for copier in met:
            transfer.meet(copier)
        return [self._watch(copier, shard) for copier in met]

    def _watch(self, copier: NodeId, shard: ShardId) -> SendAsk:
        """Ask for nothing, so as to hear what is there."""
        return SendAsk(copier, Ask(self._peer(copier).skip_ticket(), shard, 0, 0, with_hashes=False, is_copy=True))

    def _watch_again(self, holder: NodeId) -> list[TransferAction]:
        known = [(shard, transfer.sources.get(holder)) for shard, transfer in self._transfers.items()]
        return [self._watch(holder, shard) for shard, source in known if source is not None and source.is_copier]

    def _on_copier(self, now: float, copier: NodeId, shard: ShardId, present: int | None) -> list[TransferAction]:
        transfer = self._transfers.get(shard)
        source = transfer.sources.get(copier) if transfer is not None else None
        if transfer is None or source is None or not source.is_copier:
            return []
        if present is None:
            self._close_all(copier, shard)
            source.give_up()
        else:
            source.tell(mask(0, chunk_count(transfer.ref.nbytes)) & ~present)
        return self._offer(now, shard)

    def _give_up_holder(self, now: float, holder: NodeId) -> list[TransferAction]:
        peer = self._peer(holder)
        for number in list(peer.tickets):
            self._close(holder, number, peer.tickets[number].open)
        touched = [shard for shard, transfer in self._transfers.items() if holder in transfer.sources]
        for shard in touched:
            self._transfers[shard].sources[holder].give_up()
        return [action for shard in touched for action in self._offer(now, shard)]

    def _drop(self, now: float, run: RunId, shard: ShardId) -> list[TransferAction]:
        transfer = self._transfers.get(shard)
        if transfer is None:
            return []
        transfer.unwant(run)
        if transfer.needed:
            return []
        freed = [holder for holder in transfer.sources if self._close_all(holder, shard)]
        del self._transfers[shard]
        return [action for holder in freed for action in self._pump(now, holder)]

    def _catch_lie(self, now: float, holder: NodeId, shard: ShardId) -> list[TransferAction]:
        self._transfers[shard].sources[holder].give_up(has_lied=True)
        self._close_all(holder, shard)
        report = Report("shards.corrupt", {"shard": shard, "holder": holder}, "error")
        return [report, *self._offer(now, shard), *self._pump(now, holder)]

    def _note_answer(self, now: float, holder: NodeId, ticket: int) -> list[TransferAction]:
        """It lives; and what it was asked before this ticket and has not answered, it never got."""
        peer = self._peers[holder]
        peer.answer(now)
        lost = list(takewhile(lambda older: older < ticket, peer.tickets))
        return self._lose(now, holder, lost) if lost else []

    def _lose(self, now: float, holder: NodeId, tickets: Sequence[int]) -> list[TransferAction]:
        peer, touched = self._peer(holder), dict[ShardId, None]()
        for number in tickets:
            ticket = peer.tickets[number]
            touched[ticket.shard] = None
            self._close(holder, number, ticket.open)
        for shard in touched:
            self._transfers[shard].sources[holder].lose()
        return [action for shard in touched for action in self._offer(now, shard)]

    # Bookkeeping --------------------------------------------------------------------------------------------------

    def _peer(self, holder: NodeId) -> Peer:
        known = self._peers.get(holder)
        if known is None:
            known = self._peers[holder] = Peer()
        return known

    def _close(self, holder: NodeId, number: int, chunks: int) -> None:
        """These open chunks of a ticket are answered, or will never be."""
        self._transfers[self._peers[holder].close(number, chunks)].close(chunks)

    def _close_all(self, holder: NodeId, shard: ShardId) -> bool:
        peer = self._peer(holder)
        mine = [number for number, ticket in peer.tickets.items() if ticket.shard == shard]
        for number in mine:
            self._close(holder, number, peer.tickets[number].open)
        return bool(mine)

    def _complete(self, shard: ShardId) -> list[TransferAction]:
        """Announce the ranges that are complete; the fetch ends with its last one."""
        transfer = self._transfers[shard]
        actions: list[TransferAction] = []
        for run, first, end in list(transfer.wants):
            if not mask(first, end) & ~transfer.present:
                transfer.wants.remove((run, first, end))
                actions.append(Fetched(run, shard, first, end))
        if not transfer.wants:
            for holder in transfer.sources if transfer.asked else ():  # of ranges given up since
                self._close_all(holder, shard)
            del self._transfers[shard]
        return actions

    def _offer(self, now: float, shard: ShardId) -> list[TransferAction]:
        """Some chunks are to be asked for: of the holders with most credit first. None left for any: it failed."""
        transfer = self._transfers.get(shard)
        if transfer is None:
            return []
        usable = [holder for holder in transfer.sources if transfer.obtainable(holder)]
        if not usable:
            return [] if transfer.asked else self._fail(shard)
        if len(usable) == 1:
            self._peer(usable[0]).enqueue(shard)
            return self._pump(now, usable[0])
        share = -(-(transfer.needed & ~transfer.asked).bit_count() // len(usable))
        for holder in usable:
            self._peer(holder).enqueue(shard)
        usable.sort(key=lambda holder: self._peers[holder].open_count)
        actions: list[TransferAction] = []
        while made := [ask for holder in usable for ask in self._ask_next(now, holder, share)]:
            actions += made
        return actions

    def _fail(self, shard: ShardId) -> list[TransferAction]:
        transfer = self._transfers.pop(shard)
        named = {who: source for who, source in transfer.sources.items() if not source.is_copier}
        missing = tuple(sorted(who for who, source in named.items() if source.lacks or source.has_lied))
        silent = tuple(sorted(who for who in named if who not in missing))
        return [FetchFailed(run, shard, first, end, missing, silent) for run, first, end in transfer.wants]

    def _pump(self, now: float, holder: NodeId) -> list[TransferAction]:
        """Ask this holder for as much as its credit allows, one run of each waiting fetch in turn."""
        actions: list[TransferAction] = []
        queue = self._peer(holder).queue
        while queue and (made := self._ask_next(now, holder, RUN_CHUNKS)):
            actions += made
        return actions

    def _ask_next(self, now: float, holder: NodeId, share: int) -> list[TransferAction]:
        """One ask of at most `share` chunks for the first in the holder's queue that may ask, if it has credit."""
        peer = self._peer(holder)
        has_credit = peer.open_count <= WINDOW_CHUNKS - REFILL_CHUNKS
        for _ in range(len(peer.queue) if has_credit else 0):
            shard = peer.dequeue()
            transfer = self._transfers.get(shard)
            if transfer is None or holder not in transfer.sources:
                continue
            chunks = left = transfer.obtainable(holder)
            if transfer.is_copy:
                chunks = allowed(transfer, holder, self._me, peer.open_of(shard))
            ask = self._ask(now, peer, transfer, chunks, share) if chunks else None
            if ask is not None:
                left &= ~mask(ask.first, ask.end)
            if left:
                peer.enqueue(shard)
            if ask is not None:
                return [SendAsk(holder, ask)]
        return []

    def _ask(self, now: float, peer: Peer, transfer: Transfer, chunks: int, share: int) -> Ask:
        first = (chunks & -chunks).bit_length() - 1
        run = (~(chunks >> first) & ((chunks >> first) + 1)).bit_length() - 1
        end = first + min(run, share, RUN_CHUNKS, WINDOW_CHUNKS - peer.open_count)
        asked = mask(first, end)
        number = peer.open_ticket(now, transfer.ref.id, asked)
        transfer.ask(asked)
        with_hashes = transfer.hashes is None and chunk_count(transfer.ref.nbytes) > 1
        return Ask(number, transfer.ref.id, first, end, with_hashes, transfer.is_copy)
