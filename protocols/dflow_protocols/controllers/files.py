"""Files: what a run's works open must lie on this host before they start.

The node asks its host once to see to them, and is told how they stand, again and again: bringing them is not the
protocol's. Until they lie here the node leaves its share to others and copies what they make; works on shards alone
need none.
"""

from __future__ import annotations

from collections.abc import Collection

from ..events import Action, FindFiles
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from .stealing import Stealing

LOOK_WAIT = 0.5  # suspicion times for the host's first answer: less than any rule waits for a silent home
LOOKING = "they are being looked for"


class Files:
    """One run's at one node."""

    def __init__(self, state: RunState, calls: Calls, stealing: Stealing, outbox: Outbox) -> None:
        self._state = state
        self._calls = calls
        self._stealing = stealing
        self._outbox = outbox
        self._asked_at: float | None = None

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Ask for them, once in the life of an attempt. While a host looks for long, they are taken to be missing."""
        status = self._state.status
        if self._state.ability.are_files_known:
            return
        if self._asked_at is None:
            self._asked_at = now
            out.append(FindFiles(status.run, status.files, status.base))
        elif now - self._asked_at > LOOK_WAIT * mesh.suspicion_s:
            self.found(now, mesh, LOOKING, (), out)

    def found(self, now: float, mesh: MeshView, lacking: str, refused: Collection[str], out: list[Action]) -> None:
        """How they stand here. What runs may end; what waits, and was taken from others, is given back where something
        is withdrawn."""
        state = self._state
        before = {each.stage for each in state.ability.withdrawn}
        if not state.status.files or not state.is_active or not state.ability.found(lacking, refused):
            return
        state.revision.bump()
        after = {each.stage for each in state.ability.withdrawn}
        if after - before:
            self._calls.stop_barred(out)
            self._give_back(now, mesh, out)
        if after != before:
            self._outbox.tell_all(mesh, None, out)  # others take this node's share at once, or give it some again

    def _give_back(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Claim what runs and nothing else."""
        position = self._state.position
        if position is not None:
            views = self._state.views(now, mesh, position)
            owners = self._stealing.give_back([unit for view in views for unit in view.running])
            self._outbox.put_all_claims(views, out, owners)
