"""Relaying: bringing shards here for a member that cannot fetch them itself from any node that holds them.

Who asks then fetches them from here. It asks again as long as it wants them, so a promise that is forgotten harms
nothing.
"""

from __future__ import annotations

from collections import Counter

from ..events import Action, Send
from ..names import CHUNK_BYTES, NodeId
from ..run_state.run_state import Bringing, MeshView, RunState
from ..wire.steps import Bring, Brought

BRING_FOR = 4.0  # suspicion times that a promise stands without being asked for again
MAX_BRINGING = 4_096  # promises at once
SMALL_BYTES = 64 << 20  # an asker's share where a version has less; see `Relaying._share`
ALL_SHARES = 4  # of all askers together
ASKER_SHARE = MAX_BRINGING // 4  # promises to one asker


class Relaying:
    """One run's at one node. What was brought stays as long as the run's other shards of a step, so it is counted until
    it is freed: a member that asks for whatever another one holds fills no store."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._bytes: dict[Bringing, int] = {}  # of what is promised, or lies here for it; 0 if it did before
        self._theirs, self._promises = Counter[NodeId](), Counter[NodeId]()  # these bytes and promises, by asker
        self._is_counted = False  # in this turn

    def take(self, now: float, mesh: MeshView, source: NodeId, message: Bring | Brought) -> None:
        """A member asks for chunks of a shard that it cannot reach, or has what it was asked for."""
        match message:
            case Brought(shard=name, first=first, end=end):
                self._state.holdings.brought_near(source, name, (first, end))
            case Bring(shard=shard, first=first, end=end, holder=holder) if message.fits and holder in mesh.living:
                leads_back = mesh.routes.get(holder) == source  # then each would keep the other's promise alive
                bringing = Bringing(source, shard, first, end)
                if not leads_back and self._takes_on(bringing):
                    self._state.bring(bringing, holder, now + BRING_FOR * mesh.suspicion_s)

    def _takes_on(self, bringing: Bringing) -> bool:
        """Whether it is promised already, or fits into the shares of its asker and of all. Counts it, if so."""
        state, chunks = self._state, (bringing.first, bringing.end)
        if bringing in state.bringing:
            return True
        self._count()
        asker, known = bringing.asker, self._bytes.get(bringing, 0)
        nbytes = known
        if not state.holdings.has(bringing.shard, chunks):
            nbytes = min(bringing.shard.nbytes, (bringing.end - bringing.first) * CHUNK_BYTES)
        more, share = nbytes - known, self._share()
        if self._theirs[asker] + more > share or self._theirs.total() + more > ALL_SHARES * share:
            return False
        if self._promises[asker] >= ASKER_SHARE or len(state.bringing) >= MAX_BRINGING:
            return False
        self._bytes[bringing] = nbytes
        self._theirs[asker] += more
        self._promises[asker] += 1
        return True

    def _count(self) -> None:
        """What is promised, and what lies here, to each asker: once a turn, since a frame holds thousands of asks."""
        if self._is_counted:
            return
        state, here = self._state, self._state.holdings.all_here()
        self._bytes = {
            each: nbytes for each, nbytes in self._bytes.items() if each in state.bringing or each.shard.id in here
        }
        self._theirs = Counter()
        for each, nbytes in self._bytes.items():
            self._theirs[each.asker] += nbytes
        self._promises = Counter(each.asker for each in state.bringing)
        self._is_counted = True

    def _share(self) -> int:
        """Bytes that lie here, or are to, for one asker alone: what a copy of the version takes, which is more than a
        step's gradient. It asks again for the rest, and the run's sweeps free what it had."""
        position = self._state.position
        return max(SMALL_BYTES, sum(ref.nbytes for _, ref in position.state) if position is not None else 0)

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Fetch what was promised, if need be by way of others in turn, and tell who asked once it is here."""
        state, self._is_counted = self._state, False
        for bringing, (holder, until) in tuple(state.bringing.items()):
            chunks = (bringing.first, bringing.end)
            if bringing.asker not in mesh.living or until <= now:
                state.brought(bringing)
            elif state.holdings.want(now, bringing.shard, mesh.living, out, chunks, [holder]):
                state.brought(bringing)
                out.append(Send(bringing.asker, Brought(state.id, bringing.shard.id, *chunks)))
