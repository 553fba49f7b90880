"""Draining: a node that takes no new work ends what runs, hands over what only it holds, and stays.

What it was dealt is others' at once, as the deal knows it for drained. Of a step that it took part in it serves what it
made until others are further; then it lets go of the run, and is to it as one that comes later.
"""

from __future__ import annotations

from ..events import Action
from ..names import MANIFEST
from ..run_state import references
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.sealing import chosen
from ..steps.view import StepView
from ..versions.versions import preference
from .sealer import Sealer
from .stealing import Stealing

HOLDERS = 2  # of a later version, before this node gives up its own


class Draining:
    """One run's at one node, while that is drained."""

    def __init__(self, state: RunState, calls: Calls, sealer: Sealer, stealing: Stealing, outbox: Outbox) -> None:
        self._state = state
        self._calls = calls
        self._sealer = sealer
        self._stealing = stealing
        self._outbox = outbox

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Give up what has not begun, tell what was made, and let go when others are further."""
        state = self._state
        self._calls.stop_waiting(out)
        if state.catch_up.target is not None:
            state.catch_up.stop()
            references.keep_only(state, references.all_records(state), out)
        if state.position is not None:
            self._end_steps(state.views(now, mesh, state.position), out)
        step = self._step_of_others(mesh)
        if step is None:
            return
        self._calls.stop_all(out, but_saves=True)  # whatever still runs is for a step that is over
        if state.calls or (state.versions.own is None and all(number >= step for number in state.steps)):
            return
        is_news = state.versions.own is not None
        state.let_go(step)
        self._stealing.close()
        references.keep_only(state, (), out)
        if is_news:
            self._outbox.tell_all(mesh, None, out)

    def _end_steps(self, views: list[StepView], out: list[Action]) -> None:
        """Tell of blocks that were kept back, and claim what runs and nothing else."""
        state, view = self._state, views[0]
        if view.step.roster is None:
            return
        manifest = chosen(view, state.versions, MANIFEST, view.trains.id)
        batch = self._sealer.batch(view, manifest)
        if batch is not None:
            self._sealer.tell_blocks(view, batch, out)
        owners = self._stealing.give_back([unit for view in views for unit in view.running])
        if owners or any(view.step.claimed_by(view.now, state.me) != set(state.taken_on(view)) for view in views):
            self._outbox.put_all_claims(views, out, owners)

    def _step_of_others(self, mesh: MeshView) -> int | None:
        """How far those on duty are, if enough of them have a better version than this node."""
        own, heads = self._state.versions.own, self._state.versions.heads
        further = [
            head.step
            for node, head in heads.items()
            if node in mesh.on_duty and (own is None or preference(head) < preference(own.head))
        ]
        enough = max(1, min(HOLDERS, len(mesh.on_duty)))
        return sorted(further, reverse=True)[enough - 1] if len(further) >= enough else None
