"""How chunks pass from node to node in a world, one chunk a round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ...events import Fetch, FetchAdvanced, Fetched, FetchFailed
from ...names import CHUNK_BYTES, NodeId, RunId, ShardId
from .network import Lanes
from .provenance import bytes_of
from .schedule import Life
from .store import Store

SILENCE_S = 1.0  # a holder that serves nothing for so long is given up
LOOK_S = 0.5  # so often a chunk that is on its way is said to be, as `dflowd/shards/exchange.py` does
ASK_BYTES = 1000.0  # a request and its envelope, for the time it takes


@dataclass
class Transfer:
    """A fetch under way: the chunks still to come, the holders still to ask, and what the asked ones said."""

    asked: Fetch
    at: int  # next chunk
    left: list[NodeId]  # holders not yet given up, the first one being asked
    missing: list[NodeId] = field(default_factory=list)
    silent: list[NodeId] = field(default_factory=list)
    asks: int = 0  # how often a holder was asked; what comes of an earlier ask comes too late

    def advance(self) -> None:
        """The next chunk is here."""
        self.at += 1

    def ask(self) -> int:
        self.asks += 1
        return self.asks


class BulkLane:
    """One node's fetches. Asks the holders in the order named; goes on with the next where one fails.

    `serves(holder)`: the store of a holder that can be reached there and back, or None; `grant(fetch)`: whether there
    is room for what it brings.
    """

    def __init__(
        self,
        life: Life,
        store: Store,
        lanes: Lanes,
        serves: Callable[[NodeId], Store | None],
        grant: Callable[[Fetch], bool],
    ) -> None:
        self._life = life
        self._store = store
        self._lanes = lanes
        self._serves = serves
        self._grant = grant
        self._transfers: list[Transfer] = []
        self.fetched_bytes: Counter[ShardId] = Counter()

    def fetch(self, asked: Fetch) -> None:
        if not self._grant(asked):
            self._life.tell(FetchFailed(asked.run, asked.ref.id, asked.first, asked.end, (), ()))
            return
        is_here = asked.came == bytes_of(asked.ref)
        transfer = Transfer(asked, asked.end if is_here else asked.first, list(asked.holders))
        self._transfers.append(transfer)
        self._go_on(transfer)

    def give_up(self, run: RunId, shard: ShardId) -> None:
        self._transfers = [t for t in self._transfers if (t.asked.run, t.asked.ref.id) != (run, shard)]

    def hang_up(self, holder: NodeId) -> None:
        """What this holder is being asked for will not come."""
        for transfer in [t for t in self._transfers if t.left and t.left[0] == holder]:
            self._refused(transfer, transfer.silent)

    def _go_on(self, transfer: Transfer) -> None:
        """Ask for the next chunk, or end."""
        asked, ask = transfer.asked, transfer.ask()
        while transfer.at < asked.end and self._store.has(asked.ref, transfer.at, transfer.at + 1):
            self._store.put(asked.run, asked.ref, transfer.at, transfer.at + 1)  # another run's chunk is this one's too
            transfer.advance()
        if transfer.at >= asked.end or not transfer.left:
            self._life.after(0.0, lambda: self._end(transfer))
            return
        if self._serves(transfer.left[0]) is None:
            self._life.after(SILENCE_S, lambda: self._stayed_silent(transfer, ask))
        else:
            seconds = self._lanes.fetch_seconds(transfer.left[0], ASK_BYTES + min(CHUNK_BYTES, asked.ref.nbytes))
            self._life.after(seconds, lambda: self._arrived(transfer, ask))
            self._watch(transfer, ask, seconds)

    def _watch(self, transfer: Transfer, ask: int, left_s: float) -> None:
        """As long as a chunk is under way its bytes are a sign of life."""
        if left_s > LOOK_S:
            self._life.after(LOOK_S, lambda: self._flows(transfer, ask, left_s - LOOK_S))

    def _flows(self, transfer: Transfer, ask: int, left_s: float) -> None:
        if ask == transfer.asks and self._serves(transfer.left[0]) is not None and self._is_wanted(transfer):
            self._life.tell(FetchAdvanced(transfer.asked.run, transfer.asked.ref.id))
            self._watch(transfer, ask, left_s)

    def _stayed_silent(self, transfer: Transfer, ask: int) -> None:
        if ask == transfer.asks:
            self._refused(transfer, transfer.silent)

    def _arrived(self, transfer: Transfer, ask: int) -> None:
        if ask != transfer.asks or not self._is_wanted(transfer):
            return
        asked, holder = transfer.asked, self._serves(transfer.left[0])
        if holder is None:
            self._life.after(SILENCE_S, lambda: self._stayed_silent(transfer, ask))
        elif not holder.has(asked.ref, transfer.at, transfer.at + 1):
            self._refused(transfer, transfer.missing)
        else:
            self._store.put(asked.run, asked.ref, transfer.at, transfer.at + 1)
            self.fetched_bytes[asked.ref.id] += min(CHUNK_BYTES, asked.ref.nbytes - transfer.at * CHUNK_BYTES)
            transfer.advance()
            if transfer.at < asked.end:
                self._life.tell(FetchAdvanced(asked.run, asked.ref.id))
            self._go_on(transfer)

    def _refused(self, transfer: Transfer, answer: list[NodeId]) -> None:
        answer.append(transfer.left.pop(0))
        self._go_on(transfer)

    def _is_wanted(self, transfer: Transfer) -> bool:
        return any(transfer is other for other in self._transfers)

    def _end(self, transfer: Transfer) -> None:
        if not self._is_wanted(transfer):
            return
        self._transfers = [other for other in self._transfers if other is not transfer]
        asked = transfer.asked
        if transfer.at >= asked.end:
            self._store.put(asked.run, asked.ref, asked.first, asked.end)
            self._life.tell(Fetched(asked.run, asked.ref.id, asked.first, asked.end))
        else:
            answers = (tuple(transfer.missing), tuple(transfer.silent))
            self._life.tell(FetchFailed(asked.run, asked.ref.id, asked.first, asked.end, *answers))
