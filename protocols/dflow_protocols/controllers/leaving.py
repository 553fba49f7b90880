"""Leaving: a node that is asked to stop gives back what it runs, and hands over what only it holds. One whose slots
fail gives back what runs there, and stays. One that is drained hands over, too (draining.py)."""

from __future__ import annotations

from ..events import Action, Send
from ..names import NodeId, ShardRef
from ..rendezvous import ranked
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..versions.versions import preference
from ..wire.steps import Head, Keep
from .checkpoints import Checkpoints
from .stealing import Stealing


class Leaving:
    """One run's at one node. Until `begin`, nothing."""

    def __init__(
        self, state: RunState, calls: Calls, checkpoints: Checkpoints, stealing: Stealing, outbox: Outbox
    ) -> None:
        self._state = state
        self._calls = calls
        self._checkpoints = checkpoints
        self._stealing = stealing
        self._outbox = outbox
        self._is_saving = False
        self._asked = 0

    def begin(self, now: float, mesh: MeshView, drained: frozenset[NodeId]) -> list[Action]:
        """Give up what runs here, and ask a living member to keep what nobody else holds. `drained`: who was until
        now."""
        state, out = self._state, list[Action]()
        self._calls.stop_all(out, but_saves=True)
        state.leave(drained)
        if self._give_back(now, mesh, out):
            self.hand_over(mesh, out)
        return out

    def stand_aside(self, now: float, mesh: MeshView) -> list[Action]:
        """No slot works any more: give back what runs there, and stay for all that needs none."""
        out = list[Action]()
        self._calls.stop_on_devices(out)
        self._give_back(now, mesh, out)
        return out

    def _give_back(self, now: float, mesh: MeshView, out: list[Action]) -> bool:
        """Say that it is others' now. Whether there is a step open of which anybody would hear."""
        state, position = self._state, self._state.position
        if position is None or not state.is_active:
            return False
        state.gather(now, ())
        self._outbox.put_all_claims(state.views(now, mesh, position), out, self._stealing.give_back())
        return True

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Save the version, which may be about to have no holder at all: others may have been asked to leave too."""
        self._is_saving = self._checkpoints.part(now, mesh, out)

    def hand_over(self, mesh: MeshView, out: list[Action]) -> None:
        """Ask one of those who stay after another to keep what none of them holds; called until nothing is left."""
        sole = self.held_alone(mesh)
        if sole:
            others = ranked(self._state.id, tuple(sorted(self._keepers(mesh))))
            out.append(Send(others[self._asked % len(others)], Keep(self._state.id, sole)))
            self._asked += 1

    def is_done(self, mesh: MeshView) -> bool:
        """Whether nothing of this run would go with this node."""
        if not self._state.is_active:
            return self._state.is_cleared  # a run that failed saves its newest version first
        return not self._is_saving and not self.held_alone(mesh)

    def held_alone(self, mesh: MeshView) -> tuple[ShardRef, ...]:
        """Shards of the version and of the open steps that none of those who stay is known to hold. Nothing where one
        of them is further: then the step is over."""
        run, keepers = self._state, self._keepers(mesh)
        own = run.versions.own
        if own is None or not keepers or self._is_outdone(own.head, keepers):
            return ()
        steps = [step for number, step in run.steps.items() if number >= own.step]
        refs = [ref for step in steps for record in step.all_records() for ref in record.shards]
        if not run.versions.holders(own.id, keepers):
            refs += [ref for _, ref in own.state]
        here = {*keepers, run.me}
        return tuple(ref for ref in dict.fromkeys(refs) if run.holdings.live_holders(ref.id, here) == (run.me,))

    def _keepers(self, mesh: MeshView) -> frozenset[NodeId]:
        """Who can be asked to keep something: those on duty; the drained only where this node is about to end."""
        on_duty = mesh.on_duty - {self._state.me}
        return on_duty or (mesh.living - {self._state.me} if self._state.is_leaving else on_duty)

    def _is_outdone(self, own: Head, keepers: frozenset[NodeId]) -> bool:
        heads = self._state.versions.heads
        return any(preference(head) < preference(own) for node, head in heads.items() if node in keepers)
