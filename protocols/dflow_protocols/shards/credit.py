"""The books of fetching: what each fetch still needs, and what is in flight at which holder, against its credit.

Sets of chunks are bitmaps, chunk i being bit i. Decides nothing: transfer.py does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from ..names import NodeId, RunId, ShardId, ShardRef, chunk_count

MAX_LOSSES = 3  # lost asks to one holder in one fetch, before it counts as silent


def mask(first: int, end: int) -> int:
    """Bitmap of the chunks [first, end)."""
    return ((1 << (end - first)) - 1) << first


@dataclass(slots=True)
class Source:
    """A holder, as one fetch sees it."""

    lacks: int = 0  # bitmap of chunks it said it has not
    losses: int = 0
    is_usable: bool = True
    has_lied: bool = False
    is_copier: bool = False  # it copies the shard itself, says a holder; the node that fetches named it not

    def tell(self, lacks: int) -> None:
        """It says what it has: all but these."""
        self.lacks = lacks

    def lack(self, chunks: int) -> None:
        self.lacks |= chunks

    def lose(self) -> None:
        """An ask was lost on the way; after MAX_LOSSES of them the holder counts as silent."""
        self.losses += 1
        self.is_usable &= self.losses < MAX_LOSSES

    def give_up(self, has_lied: bool = False) -> None:
        """It is not asked again in this fetch. `has_lied`: its bytes were not those of the shard."""
        self.is_usable = False
        self.has_lied |= has_lied


@dataclass(slots=True)
class Transfer:
    """The fetch of one shard, for all runs that want it. `present`, `asked`: bitmaps of chunks."""

    ref: ShardRef
    hashes: tuple[bytes, ...] | None
    present: int = 0
    asked: int = 0
    wants: list[tuple[RunId, int, int]] = field(default_factory=list)
    sources: dict[NodeId, Source] = field(default_factory=dict)
    is_copy: bool = False  # others may copy it too, and get from here what is here
    start: int = 0  # of a copy: the chunk to begin with

    @property
    def needed(self) -> int:
        wanted = 0
        for _, first, end in self.wants:
            wanted |= mask(first, end)
        return wanted & ~self.present

    def obtainable(self, holder: NodeId) -> int:
        """Bitmap of the chunks to ask this holder for."""
        source = self.sources[holder]
        return self.needed & ~self.asked & ~source.lacks if source.is_usable else 0

    def want(self, run: RunId, first: int, end: int, holders: Iterable[NodeId]) -> None:
        """One more range, perhaps of other holders."""
        if (run, first, end) not in self.wants:
            self.wants.append((run, first, end))
        for holder in holders:
            self.sources.setdefault(holder, Source())

    def copy(self, start: int) -> None:
        """Share it with whoever copies it too; begin at `start`."""
        self.is_copy, self.start = True, start

    def meet(self, copier: NodeId) -> None:
        """One more copies this shard. Until it says what it has it has nothing."""
        self.sources[copier] = Source(lacks=mask(0, chunk_count(self.ref.nbytes)), is_copier=True)

    def parts(self) -> dict[NodeId, int]:
        """Of the others that copy it and have not all of it yet: bitmap of what each has. Those count that have said
        nothing so far: all who begin at once know each other sooner than their lanes are open."""
        whole = mask(0, chunk_count(self.ref.nbytes))
        return {
            node: whole & ~source.lacks
            for node, source in self.sources.items()
            if source.is_copier and source.is_usable and source.lacks
        }

    def renew(self, present: int, hashes: tuple[bytes, ...] | None) -> bool:
        """What lies here: less than before, if the shard was dropped and is wanted again. Whether the hashes are known
        here and not there."""
        self.present = present
        are_news = bool(self.hashes) and not hashes
        self.hashes = self.hashes or hashes
        return are_news

    def unwant(self, run: RunId) -> None:
        self.wants = [want for want in self.wants if want[0] != run]

    def learn_hashes(self, hashes: tuple[bytes, ...]) -> None:
        self.hashes = hashes

    def ask(self, chunks: int) -> None:
        self.asked |= chunks

    def close(self, chunks: int) -> None:
        """These are not asked of anybody any more."""
        self.asked &= ~chunks

    def receive(self, chunks: int) -> None:
        """They are here, verified."""
        self.present |= chunks


@dataclass(slots=True)
class Ticket:
    shard: ShardId
    open: int  # bitmap of the chunks not yet answered

    def close(self, chunks: int) -> bool:
        """Whether that was the last of it."""
        self.open &= ~chunks
        return not self.open


@dataclass(slots=True)
class Peer:
    """A holder, over all fetches."""

    next_ticket: int = 0
    tickets: dict[int, Ticket] = field(default_factory=dict)  # oldest first
    open_count: int = 0  # chunks; the credit in use
    since: float = inf  # when it last answered, or was asked after it had answered all
    queue: dict[ShardId, None] = field(default_factory=dict)  # fetches that may have something to ask it

    def open_of(self, shard: ShardId) -> int:
        """How many chunks of this shard are open here."""
        return sum(ticket.open.bit_count() for ticket in self.tickets.values() if ticket.shard == shard)

    def skip_ticket(self) -> int:
        """A number for an ask that opens nothing."""
        number, self.next_ticket = self.next_ticket, self.next_ticket + 1
        return number

    def open_ticket(self, now: float, shard: ShardId, chunks: int) -> int:
        """The number of a new ask. A peer that had answered all is timed from now on."""
        if not self.tickets:
            self.since = now
        number = self.skip_ticket()
        self.tickets[number] = Ticket(shard, chunks)
        self.open_count += chunks.bit_count()
        return number

    def close(self, number: int, chunks: int) -> ShardId:
        """These open chunks of a ticket are answered, or will never be. Of which shard they are."""
        ticket = self.tickets[number]
        self.open_count -= chunks.bit_count()
        if ticket.close(chunks):
            del self.tickets[number]
        return ticket.shard

    def answer(self, now: float) -> None:
        """It lives."""
        self.since = now

    def enqueue(self, shard: ShardId) -> None:
        """Behind the others, unless it waits already."""
        self.queue[shard] = None

    def dequeue(self) -> ShardId:
        shard = next(iter(self.queue))
        del self.queue[shard]
        return shard
