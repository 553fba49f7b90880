"""A swarm: nodes that copy one shard at once give each other what they have, so that its holder sends it once.

Two halves. `Audience` is the holder's: who copies what from here, so that each is told of the others, and how much is
here meanwhile. `allowed` is the copier's: which chunks to ask of whom. As in BitTorrent (Cohen 2003, "Incentives build
robustness") the rarest go first; who takes which of those that only whole holders have is dealt by index, so that no
two take the same. Knows nothing of credit, which transfer.py keeps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from math import inf
from operator import or_

from ..names import NodeId, ShardId, ShardRef, chunk_count, content_id
from ..rendezvous import ranked
from .credit import Transfer, mask

COPIES_S = 10.0  # who asked for some of a shard so lately still copies it
FORGET_S = 60.0  # what nobody asked for, and of which no chunk came, since
MOST_COPIERS = 16  # that one copier is told of: more links bring no more, once its own is full
TELL_S = 0.02  # at most so often is told what is here of a shard
COPY_CHUNKS = 8  # open at each holder, shared among those who copy: what is asked of a slow one comes late
LEAST_CHUNKS = 2  # of that for each of many: one on its way while another is asked for


@dataclass(slots=True)
class _Copier:
    asked_at: float = -inf
    told: tuple[NodeId, ...] = ()

    def tell(self, now: float, others: tuple[NodeId, ...]) -> bool:
        """It asked. Whether these others are news to it."""
        is_news = others != self.told
        self.asked_at, self.told = now, others
        return is_news


@dataclass(slots=True)
class _Copied:
    """A shard that others copy from here."""

    copiers: dict[NodeId, _Copier] = field(default_factory=dict)
    touched_at: float = -inf
    told_at: float = -inf

    def touch(self, now: float) -> None:
        self.touched_at = now


class Audience:
    """Of one node that serves."""

    def __init__(self) -> None:
        self._copied: dict[ShardId, _Copied] = {}
        self._grown: set[ShardId] = set()

    def ask(self, now: float, shard: ShardId, peer: NodeId) -> tuple[NodeId, ...] | None:
        """`peer`, which copies `shard`, asked for some of it. Who else copies it, if that is news to `peer`."""
        if shard not in self._copied:
            self._forget(now)
        copied = self._copied.setdefault(shard, _Copied())
        copied.touch(now)
        lately = [node for node, it in copied.copiers.items() if node != peer and now <= it.asked_at + COPIES_S]
        others = ranked(f"{shard}/{peer}", tuple(sorted(lately)))[:MOST_COPIERS]
        return others if copied.copiers.setdefault(peer, _Copier()).tell(now, others) else None

    def grow(self, now: float, shard: ShardId) -> None:
        """More of it is here than before."""
        if shard in self._copied:
            self._copied[shard].touch(now)
            self._grown.add(shard)

    @property
    def deadline(self) -> float:
        """When `take_grown` has something to tell."""
        return min((self._copied[shard].told_at for shard in self._grown), default=inf) + TELL_S

    def take_grown(self, now: float) -> list[tuple[ShardId, tuple[NodeId, ...]]]:
        """Of which shards to tell now what is here, and whom."""
        due = sorted(shard for shard in self._grown if now >= self._copied[shard].told_at + TELL_S)
        self._grown.difference_update(due)
        for shard in due:
            self._copied[shard].told_at = now
        return [(shard, tuple(self._copied[shard].copiers)) for shard in due]

    def _forget(self, now: float) -> None:
        for shard in [shard for shard, copied in self._copied.items() if now > copied.touched_at + FORGET_S]:
            del self._copied[shard]
            self._grown.discard(shard)


def starting_chunk(shard: ShardRef, me: NodeId) -> int:
    """At which chunk `me` begins, since the others that copy begin at once too."""
    return int(content_id("start", (shard.id, me))[:8], 16) * chunk_count(shard.nbytes) >> 32


def allowed(transfer: Transfer, holder: NodeId, me: NodeId, open_count: int) -> int:
    """Bitmap of the chunks, all or one, that `me` may ask `holder` for now. `open_count`: of this shard, open there.

    Nobody is asked for more than one before its answer, which names the other copiers; who is alone asks for more as
    more came. Of what only whole holders have each copier takes its own share; of another's, which may be slow or gone,
    one at a time, when none of its own is left. Never nothing while nothing is open at a holder that has what is
    needed.
    """
    chunks = transfer.obtainable(holder)
    if transfer.hashes is None:
        return 0 if open_count else _first(chunks, transfer.start)
    parts = transfer.parts()
    if not parts:  # alone so far: others may begin any moment
        return 0 if open_count > transfer.present.bit_count() else chunks >> transfer.start << transfer.start or chunks
    count = len(parts) + 1
    if open_count >= max(LEAST_CHUNKS, COPY_CHUNKS // count):
        return 0
    if holder in parts:
        return _first(chunks & ~_held_twice(parts.values()) or chunks, transfer.start)
    lonely = chunks & ~_held(parts.values())
    share = lonely & _every(count, sorted([*parts, me]).index(me), chunk_count(transfer.ref.nbytes))
    return _first(share or (0 if open_count else lonely or chunks), transfer.start)


def _first(chunks: int, start: int) -> int:
    """The first of these at `start` or behind it, else the first of all."""
    chunks = chunks >> start << start or chunks
    return chunks & -chunks


def _every(count: int, at: int, end: int) -> int:
    """Bitmap of the chunks before `end` whose index is `at` modulo `count`."""
    periods = -(-end // count)
    return ((1 << count * periods) - 1) // ((1 << count) - 1) << at & mask(0, end)


def _held(parts: Iterable[int]) -> int:
    """What any of these has."""
    return reduce(or_, parts, 0)


def _held_twice(parts: Iterable[int]) -> int:
    """What at least two of these have."""
    once = twice = 0
    for chunks in parts:
        twice |= once & chunks
        once |= chunks
    return twice
