"""Relaying: bringing shards here for a member that cannot fetch them itself from any node that holds them.

Who asks then fetches them from here. It asks again as long as it wants them, so a promise that is forgotten harms
nothing.
"""

from __future__ import annotations

from ..events import Action, Send
from ..names import NodeId
from ..run_state.run_state import Bringing, MeshView, RunState
from ..wire.steps import Bring, Brought

BRING_FOR = 4.0  # suspicion times that a promise stands without being asked for again
MAX_BRINGING = 4_096


class Relaying:
    """One run's at one node."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def take(self, now: float, mesh: MeshView, source: NodeId, message: Bring | Brought) -> None:
        """A member asks for chunks of a shard that it cannot reach, or has what it was asked for."""
        match message:
            case Brought(shard=name, first=first, end=end):
                self._state.holdings.brought_near(source, name, (first, end))
            case Bring(shard=shard, first=first, end=end, holder=holder) if message.fits and holder in mesh.living:
                leads_back = mesh.routes.get(holder) == source  # then each would keep the other's promise alive
                if len(self._state.bringing) < MAX_BRINGING and not leads_back:
                    until = now + BRING_FOR * mesh.suspicion_s
                    self._state.bring(Bringing(source, shard, first, end), holder, until)

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Fetch what was promised, if need be by way of others in turn, and tell who asked once it is here."""
        state = self._state
        for bringing, (holder, until) in tuple(state.bringing.items()):
            chunks = (bringing.first, bringing.end)
            if bringing.asker not in mesh.living or until <= now:
                state.brought(bringing)
            elif state.holdings.want(now, bringing.shard, mesh.living, out, chunks, [holder]):
                state.brought(bringing)
                out.append(Send(bringing.asker, Brought(state.id, bringing.shard.id, *chunks)))
