"""Holdings: which shards lie here, who else holds which, and what is on its way. One of each run.

What others hold is soft: a holder counts while it lives, and is forgotten when it says that it has not the shard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..events import Action, Drop, Fetch, Send
from ..journal import Journal
from ..names import NodeId, RunId, ShardId, ShardRef, chunk_count
from ..rendezvous import ranked
from ..wire.books import MOST_SHORT_BYTES
from ..wire.steps import Bring
from ..work import Product

RETRY_S = 0.25  # before a fetch that failed is tried again: others may say meanwhile who holds the shard
SILENT_FOR = 1.0  # suspicion times for which what is asked for again and again may have no answer, as a member may
DISTRUST = 4.0  # suspicion times that a living member which was silent for longer does not count as a holder
BRING_S = 1.0  # before a relay is asked once more to bring a shard near
BRING_ASKS = 8  # for what one holder has, before another one's turn: a relay does not say that it finds nothing
MOST_ALONG = 256  # outputs that came along are kept in one turn: 4 MiB, and a turn hears of fewer partitions

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Silence:
    """A holder gave nothing of what it was asked for: each time since the first, up to the last one so far."""

    first: float
    last: float


@dataclass
class Holdings:
    run: RunId
    me: NodeId
    local: dict[ShardId, ShardRef] = field(default_factory=dict)  # whole, verified, servable
    states: set[ShardId] = field(default_factory=set)  # of these: what the store knows to be part of a version
    pieces: dict[ShardId, set[Range]] = field(default_factory=dict)  # chunk ranges of shards that are not whole
    holders: dict[ShardId, set[NodeId]] = field(default_factory=dict)  # others
    changed: Journal[ShardId] = field(
        default_factory=Journal, repr=False, compare=False
    )  # whose holders did, or count no more
    fetching: dict[tuple[ShardId, Range], tuple[ShardRef, Product]] = field(default_factory=dict)
    retry_at: dict[tuple[ShardId, Range], float] = field(default_factory=dict)
    distrusted: dict[NodeId, float] = field(default_factory=dict)  # alive, but silent when asked for a shard; until
    begun: set[ShardId] = field(default_factory=set)  # the store may have chunks of them, though no fetch runs
    moved: set[ShardId] = field(default_factory=set)  # of these: a chunk came
    advanced_at: float = 0.0  # when the last chunk arrived
    state_at: float = 0.0  # and when the last one of a version's state did
    fresh_at: float = 0.0  # when the last one did of a shard of which no fetch had ended before
    brought: set[ShardId] = field(default_factory=set)  # of which one has
    step: int = 0  # that this node works on, and so fetches for
    routes: Mapping[NodeId, NodeId] = field(default_factory=dict)  # members that cannot be fetched from -> a relay
    near: dict[tuple[ShardId, Range], set[NodeId]] = field(default_factory=dict)  # who brought what for this node
    asks: dict[tuple[ShardId, Range], int] = field(default_factory=dict)  # of relays, for what none has brought yet
    came: dict[ShardId, bytes] = field(default_factory=dict)  # what came along with records in this turn
    tried: dict[tuple[ShardId, Range], NodeId] = field(default_factory=dict)  # who was silent, and alone is asked again
    unanswered: dict[tuple[ShardId, Range], dict[NodeId, Silence]] = field(default_factory=dict)  # asked in vain

    def work_on(self, step: int) -> None:
        """This node works on `step` from now on, and fetches for it."""
        self.step = step

    def reroute(self, routes: Mapping[NodeId, NodeId]) -> None:
        """These members cannot be fetched from now: what only they hold is to be brought near by a relay. Their
        silence says nothing of them."""
        if routes is not self.routes:
            self.routes = routes
            self._trust([node for node in self.distrusted if node in routes])

    def brought_near(self, source: NodeId, shard: ShardId, chunks: Range) -> None:
        """A member says that it has now what it was asked to bring, or anything else."""
        key = (shard, chunks)
        if key in self.near:
            self.near[key].add(source)
            self.retry_at.pop(key, None)

    def has(self, ref: ShardRef, chunks: Range | None = None) -> bool:
        return ref.id in self.local or (chunks is not None and chunks in self.pieces.get(ref.id, ()))

    def keep(self, ref: ShardRef, is_state: bool = False) -> None:
        """An engine of this node made the shard, or the last chunk of it arrived. `is_state`: as part of a version."""
        if ref.id not in self.local:
            self.changed.note(ref.id)
        self.local[ref.id] = ref
        if is_state:
            self.states.add(ref.id)
        self.pieces.pop(ref.id, None)
        self._end_beginning(ref.id)

    def credit(self, node: NodeId, shards: Iterable[ShardId]) -> None:
        """`node` says that it holds these whole."""
        if node != self.me:
            for shard in shards:
                known = self.holders.setdefault(shard, set())
                if node not in known:
                    known.add(node)
                    self.changed.note(shard)

    def come_along(self, outputs: Iterable[tuple[ShardId, bytes]]) -> None:
        """A member that tells of these says what their bytes are: there until a turn ends in which this node acts. It
        may say so of what nobody wants, as fast as its link carries it."""
        for shard, data in outputs:
            if len(data) <= MOST_SHORT_BYTES and (shard in self.came or len(self.came) < MOST_ALONG):
                self.came[shard] = data

    def end_turn(self) -> None:
        """What came and is not wanted is forgotten."""
        self.came.clear()

    def has_said(self, node: NodeId, shards: Iterable[ShardId]) -> bool:
        """Whether another node says to hold all of these, and was not found to lack one since."""
        return all(node in self.holders.get(shard, ()) for shard in shards)

    def forget(self, node: NodeId) -> None:
        self.distrusted.pop(node, None)
        for held in self.holders.values():
            held.discard(node)
        for silent in self.unanswered.values():
            silent.pop(node, None)
        self.changed.note_all()

    def is_live(self, shard: ShardId, living: frozenset[NodeId]) -> bool:
        """Whether some living node holds the shard whole."""
        if shard in self.local:
            return True
        known = self.holders.get(shard)
        if not known:
            return False
        if not self.distrusted:
            return not living.isdisjoint(known)
        return any(node in living and node not in self.distrusted for node in known)

    def live_holders(self, shard: ShardId, living: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Living nodes known to hold the shard whole, this one included."""
        known = sorted(self.holders.get(shard, ()))
        held = [node for node in known if node in living and node not in self.distrusted]
        return (*held, self.me) if shard in self.local else tuple(held)

    def count_others(self, shard: ShardId, living: Collection[NodeId]) -> int:
        """How many of these are known to hold the shard whole, without this node."""
        return sum(node in living and node not in self.distrusted for node in self.holders.get(shard, ()))

    def want(
        self,
        now: float,
        ref: ShardRef,
        living: Collection[NodeId],
        out: list[Action],
        chunks: Range | None = None,
        others: Iterable[NodeId] = (),
        product: Product = Product.OUTPUT,
        step: int = 0,
    ) -> bool:
        """Whether the shard (or these chunks of it) is here; if not, see to it that it is being fetched.

        `others`: nodes that should hold it too, for reasons this book does not know of. `product`: what of a step it
        is; a version's state that lies here for another end is asked for once more, which moves no byte, so that it
        gives way no longer. `step`: that it is for, if that is a later one than this node works on.
        """
        whole = (0, chunk_count(ref.nbytes))
        chunks = chunks or whole
        is_here = self.has(ref, chunks)
        if is_here and (product is not Product.STATE or ref.id in self.states):
            return True
        key = (ref.id, chunks)
        if key in self.fetching or (ref.id, whole) in self.fetching or self.retry_at.get(key, now) > now:
            return False
        known = {*self.live_holders(ref.id, living), *(node for node in others if node in living)} - {self.me}
        known = known or {node for node in self.holders.get(ref.id, ()) if node in living}  # silent ones, if no other
        near = (known - self.routes.keys()) | (self.near.get(key, set()) & frozenset(living))
        if near or is_here:
            self.fetching[key] = (ref, product)
            self.begun.add(ref.id)
            if len(near) == 1 and near <= self.distrusted.keys():
                self.tried[key] = next(iter(near))
            order = ranked(f"{ref.id}/{self.me}", tuple(sorted(near)))  # readers of one shard spread over its holders
            came = self.came.pop(ref.id, b"")
            out.append(Fetch(self.run, ref, *chunks, order, max(self.step, step), product, came))
        elif known:
            order, asks = ranked(f"{ref.id}/{self.me}", tuple(sorted(known))), self.asks.get(key, 0)
            holder = order[asks // BRING_ASKS % len(order)]
            self.near[key], self.asks[key] = set(), asks + 1
            self.retry_at[key] = now + BRING_S
            out.append(Send(self.routes[holder], Bring(self.run, ref, *chunks, holder)))
        return False

    def fetched(self, now: float, shard: ShardId, chunks: Range) -> bool:
        """Take what a fetch brought. False if it was given up meanwhile."""
        asked = self.fetching.pop((shard, chunks), None)
        if asked is None:
            return False
        ref, product = asked
        self._trust_who_served((shard, chunks))
        self._note_chunk(now, shard, {product})
        self.brought.add(shard)
        for table in (self.near, self.asks, self.retry_at):
            table.pop((shard, chunks), None)
        if chunks == (0, chunk_count(ref.nbytes)):
            self.keep(ref, product is Product.STATE)
        else:
            self.pieces.setdefault(shard, set()).add(chunks)
        return True

    def advanced(self, now: float, shard: ShardId) -> None:
        """A chunk of a running fetch arrived."""
        wanted_as = {product for key, (_, product) in self.fetching.items() if key[0] == shard}
        if wanted_as:
            self._note_chunk(now, shard, wanted_as)
            self.moved.add(shard)

    def _note_chunk(self, now: float, shard: ShardId, wanted_as: Collection[Product]) -> None:
        self.advanced_at = now
        if Product.STATE in wanted_as:
            self.state_at = now
        for key in [key for key in self.unanswered if key[0] == shard]:
            del self.unanswered[key]
        if shard not in self.brought:
            self.fresh_at = now

    def failed(
        self,
        now: float,
        shard: ShardId,
        chunks: Range,
        missing: Iterable[NodeId],
        out: list[Action],
        silent: Iterable[NodeId] = (),
        suspicion_s: float = 0.0,
    ) -> None:
        """A fetch gave nothing: forget holders that have it not, doubt those that are silent for long, try again a
        little later. A process or a link that stands still for a moment costs that moment: what its holder has would
        count for nobody else, and for as long as doubts last.

        Room that no chunk lies in is given back where a holder was silent: one that cannot be reached would keep a
        store full of nothing. Where holders answered, or room was refused, it is soon asked for again, and two runs
        would pass what room there is to and fro.
        """
        self.tried.pop((shard, chunks), None)
        if self.fetching.pop((shard, chunks), None) is not None:
            self.retry_at[(shard, chunks)] = now + RETRY_S
            self._note_silence(now, (shard, chunks), [node for node in silent if node not in self.routes], suspicion_s)
        self.holders.get(shard, set()).difference_update(missing)
        self.near.get((shard, chunks), set()).difference_update((*missing, *silent))
        self.changed.note(shard)
        is_fetched = any(key[0] == shard for key in self.fetching)
        if silent and shard in self.begun and not is_fetched and shard not in self.pieces and shard not in self.moved:
            self._end_beginning(shard)
            out.append(Drop(self.run, (shard,)))

    def _note_silence(
        self, now: float, key: tuple[ShardId, Range], silent: Collection[NodeId], suspicion_s: float
    ) -> None:
        """Each holder's silence is its own, and ends with a chunk. Who was not asked for as long as doubts last was not
        asked again and again."""
        if not silent:
            return
        patience_s, known = DISTRUST * suspicion_s, self.unanswered.get(key, {})
        before = {node: each for node, each in known.items() if now - each.last <= patience_s}
        found = {node: Silence(before[node].first if node in before else now, now) for node in silent}
        self.unanswered[key] = found
        late = [node for node, each in found.items() if now - each.first >= SILENT_FOR * suspicion_s]
        self._distrust(dict.fromkeys(late, now + patience_s))

    def _distrust(self, until: Mapping[NodeId, float]) -> None:
        if not until.keys() <= self.distrusted.keys():
            self.changed.note_all()
        self.distrusted.update(until)

    def trust_again(self, now: float) -> None:
        """Doubts end with time."""
        self._trust([node for node, until in self.distrusted.items() if until <= now])

    def _trust_who_served(self, key: tuple[ShardId, Range]) -> None:
        """Who alone was asked for this, though it had been silent, has it after all."""
        holder = self.tried.pop(key, None)
        if holder is not None and holder in self.distrusted:
            self._trust([holder])

    def _trust(self, nodes: list[NodeId]) -> None:
        for node in nodes:
            del self.distrusted[node]
        if nodes:
            self.changed.note_all()

    def is_coming(self, ref: ShardRef, chunks: Range | None = None) -> bool:
        whole = (0, chunk_count(ref.nbytes))
        return (ref.id, chunks or whole) in self.fetching or (ref.id, whole) in self.fetching

    def lose(self, shard: ShardId) -> None:
        """The store no longer has it after all."""
        if self.local.pop(shard, None) is not None:
            self.changed.note(shard)
        self.states.discard(shard)
        self.pieces.pop(shard, None)

    def shed(self, now: float, shard: ShardId) -> None:
        """The store gave it up for want of space, and a fetch of it too; it may be tried again a little later."""
        self.lose(shard)
        self._end_beginning(shard)
        for key in [key for key in self.fetching if key[0] == shard]:
            del self.fetching[key]
            self.retry_at[key] = now + RETRY_S

    def _end_beginning(self, shard: ShardId) -> None:
        self.begun.discard(shard)
        self.moved.discard(shard)

    def all_here(self) -> set[ShardId]:
        """Every shard that is here or on its way, in whole or in part."""
        return {*self.local, *self.pieces, *self.begun}

    def know_only(self, shards: Collection[ShardId]) -> None:
        """Forget who holds anything else, and what was tried for it."""
        for shard in [shard for shard in self.holders if shard not in shards]:
            del self.holders[shard]
            self.changed.note(shard)
        self.brought &= set(shards)
        self._forget_tries({key[0] for table in self._tries() for key in table} - {*shards})

    def drop_parts(self, out: list[Action]) -> bool:
        """Free what lies here in part and is not on its way: it can be fetched again. Whether there was any."""
        coming = {shard for shard, _ in self.fetching}
        parts = sorted((self.pieces.keys() | self.begun) - self.local.keys() - coming)
        for shard in parts:
            self.pieces.pop(shard, None)
            self._end_beginning(shard)
        if parts:
            out.append(Drop(self.run, tuple(parts)))
        return bool(parts)

    def drop(self, shards: Iterable[ShardId], out: list[Action]) -> None:
        """Free shards, whole or in part, and what is known of them."""
        gone = sorted(set(shards))
        for shard in gone:
            self.lose(shard)
            self._end_beginning(shard)
            if self.holders.pop(shard, None):
                self.changed.note(shard)
        gone_set = set(gone)
        for key in [key for key in self.fetching if key[0] in gone_set]:
            del self.fetching[key]
        self._forget_tries(gone_set)
        if gone:
            out.append(Drop(self.run, tuple(gone)))

    def _tries(self) -> tuple[dict[tuple[ShardId, Range], Any], ...]:
        return self.near, self.asks, self.retry_at, self.tried, self.unanswered

    def _forget_tries(self, shards: Collection[ShardId]) -> None:
        for table in self._tries():
            for key in [key for key in table if key[0] in shards]:
                del table[key]
