"""The store of one pretended node: which chunks of which shards lie there, for whom, and what gives way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ...names import RunId, ShardId, ShardRef, chunk_count
from ...shards.space import AdmissionQueue, Priority, latest_after


@dataclass
class Store:
    """The shards in one node's memory. One that two runs hold is kept once, until both drop it."""

    limit_bytes: int | None = None  # of memory and disk together; None: as much as is asked for
    chunks: dict[ShardId, set[int]] = field(default_factory=dict)
    sizes: dict[ShardId, int] = field(default_factory=dict)
    runs: dict[ShardId, dict[RunId, Priority]] = field(default_factory=dict)  # who refers to it, and what first for
    untold: Counter[tuple[RunId, ShardId]] = field(default_factory=Counter)  # made by works the node has yet to hear of
    states: set[ShardId] = field(default_factory=set)  # parts of versions: they never give way
    shed: set[ShardId] = field(default_factory=set)  # given up for an earlier priority at some time
    admission: AdmissionQueue = field(default_factory=AdmissionQueue)
    on_shed: Callable[[RunId, ShardId], None] = field(default=lambda run, shard: None)
    held_bytes: int = 0  # a segment is granted whole, however few of its chunks are here
    peak_bytes: int = 0
    refusals: int = 0  # how often there was no room
    filled_bytes: int | None = None  # all that there is for now, less than the limit; None: as much as that

    def limit(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes

    def fill(self) -> None:
        """Something else takes all the room that is left."""
        self.filled_bytes = self.held_bytes

    def make_room(self) -> None:
        """It is gone again."""
        self.filled_bytes = None

    @property
    def most_bytes(self) -> int | None:
        """What may be held now. None: as much as is asked for."""
        return self.limit_bytes if self.filled_bytes is None else self.filled_bytes

    def watch(self, on_shed: Callable[[RunId, ShardId], None]) -> None:
        """`on_shed` is told of each shard that gave way, for each run that refers to it."""
        self.on_shed = on_shed

    def put(self, run: RunId, ref: ShardRef, first: int = 0, end: int | None = None) -> None:
        """These chunks are here now."""
        end = chunk_count(ref.nbytes) if end is None else end
        if run not in self.runs.get(ref.id, ()):
            self._enter(Priority(run, 0), ref)
        self.chunks[ref.id].update(range(first, end))

    def put_made(self, run: RunId, refs: Collection[ShardRef]) -> Counter[tuple[RunId, ShardId]]:
        """A call made these. Until the node hears of it they cannot be dropped; then `hand_over` what is given here."""
        for ref in refs:
            self.put(run, ref)
        made = Counter((run, ref.id) for ref in refs)
        self.untold += made
        return made

    def hand_over(self, made: Counter[tuple[RunId, ShardId]]) -> None:
        """The node knows of these now, and may drop them."""
        self.untold -= made

    def has(self, ref: ShardRef, first: int = 0, end: int | None = None) -> bool:
        end = chunk_count(ref.nbytes) if end is None else end
        held = self.chunks.get(ref.id)
        is_it = self.sizes.get(ref.id) == ref.nbytes  # a name is of a length, too, and whoever fetches checks that
        return held is not None and is_it and all(chunk in held for chunk in range(first, end))

    def drop(self, run: RunId, shard: ShardId) -> bool:
        """The run no longer refers to it. Whether that freed space for which somebody waits."""
        owners = self.runs.get(shard)
        if owners is None or self.untold[run, shard]:
            return False
        owners.pop(run, None)
        if owners:
            return False
        self._remove(shard)
        return self.admission.freed()

    def take(self, now: float, priority: Priority, ref: ShardRef, pinned: Collection[ShardId]) -> bool:
        """Make room for a shard, after shedding for it if need be. False: there is none."""
        most = self.most_bytes
        if ref.id not in self.sizes and most is not None:
            if not self.admission.enter(now, priority):
                return False
            while self.held_bytes + ref.nbytes > most:
                free = set(self.sizes) - self.states - set(pinned)
                given = latest_after(priority, ((self._priority(shard), shard) for shard in sorted(free)))
                if given is None:
                    self.refusals += 1
                    self.admission.refuse(now, priority, [self._priority(shard) for shard in self.sizes])
                    return False
                self.give_up(given)
            self.admission.took(priority)
        self._enter(priority, ref)
        if priority.is_state:
            self.states.add(ref.id)
        return True

    def take_all(self, now: float, priority: Priority, refs: Collection[ShardRef], pinned: Collection[ShardId]) -> bool:
        """Make room for all of these, or for none. `pinned`: what stays where it is."""
        new = [ref for ref in refs if ref.id not in self.sizes]
        spared = {*pinned, *(ref.id for ref in refs)}
        for ref in refs:
            if not self.take(now, priority, ref, spared):
                for taken in new:
                    self.drop(priority.run, taken.id)
                return False
        return True

    def give_up(self, shard: ShardId) -> None:
        """The shard is gone, though runs refer to it: they are told."""
        owners = sorted(self.runs[shard])
        self._remove(shard)
        self.shed.add(shard)
        for run in owners:
            self.on_shed(run, shard)

    def _enter(self, priority: Priority, ref: ShardRef) -> None:
        if ref.id not in self.sizes:
            self.held_bytes += ref.nbytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
            self.sizes[ref.id], self.chunks[ref.id], self.runs[ref.id] = ref.nbytes, set(), {}
        owners = self.runs[ref.id]
        owners[priority.run] = min(priority, owners.get(priority.run, priority))

    def _remove(self, shard: ShardId) -> None:
        self.held_bytes -= self.sizes[shard]
        del self.chunks[shard], self.sizes[shard], self.runs[shard]
        self.states.discard(shard)

    def _priority(self, shard: ShardId) -> Priority:
        return min(self.runs[shard].values())
