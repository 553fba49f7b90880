"""Yielding: which run gives way where there is no room for all of them.

What can be made again gives way in the store, for any earlier run; a version's state never does. So two runs may hold
so much state that neither can go on. Then the last of them in the order of runs gives way as a whole: it ends as one
that a person stops does, its holders save its newest version and free all of it, and it is active again, at the next
attempt, when the run that it gave way to can do without. That is a status, so all nodes agree on it by merging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..events import Action
from ..names import RunId
from ..run_state import status as runs
from ..run_state.run_state import MeshView
from .run import Run

YIELD_AFTER = 8.0  # suspicion times in which a run finds no room and nothing new comes: two tries at least
REFUSED_FOR = 5.0  # suspicion times that a run counts as refused: longer than until it tries again


@dataclass(slots=True)
class _Shortage:
    """How far a run was when something new last came about, and when that was, or when room was last freed for it.
    `was_freed`: it was, and nothing new came about since."""

    marks: tuple[object, ...]
    since: float
    was_freed: bool = False

    def note_freed(self, now: float) -> None:
        self.since, self.was_freed = now, True


class Yielding:
    """Of one node: which of its runs are stuck for want of room."""

    def __init__(self) -> None:
        self._shortages: dict[RunId, _Shortage] = {}

    def reconcile(self, now: float, mesh: MeshView, known: Mapping[RunId, Run], out: list[Action]) -> None:
        """Where a run is stuck, free what it has of shards in part, which another cover of its leaves may have left
        here; and if that is nothing, or did not help, let the last of the later ones give way."""
        ordered = sorted((run for run in known.values() if run.is_active), key=_place)
        active = tuple(run.id for run in ordered)
        self._shortages = {run.id: self._follow(now, run, active) for run in ordered}
        is_under_way = any(not run.state.is_cleared for run in those_waiting(known.values()))
        stuck = next((run for run in ordered if self._is_stuck(now, mesh, run)), None)
        if stuck is None or is_under_way or mesh.is_rejoining:
            return
        others = ordered[ordered.index(stuck) + 1 :]
        later = [run for run in others if run.state.versions.held and not run.state.is_paused]
        shortage = self._shortages[stuck.id]
        if stuck.state.holdings.drop_parts(out) and not (later and shortage.was_freed):
            shortage.note_freed(now)
        elif later:
            later[-1].outbox.end(runs.FAILED, {runs.YIELDS: stuck.id}, mesh, out)

    def _follow(self, now: float, run: Run, active: tuple[RunId, ...]) -> _Shortage:
        marks, before = (active, run.progress), self._shortages.get(run.id)
        return before if before is not None and before.marks == marks else _Shortage(marks, now)

    def _is_stuck(self, now: float, mesh: MeshView, run: Run) -> bool:
        """Whether it has asked for room in vain, all the while that nothing new came about and nobody works on it."""
        state, since = run.state, self._shortages[run.id].since
        is_refused = state.refused_at > since and now - state.refused_at <= REFUSED_FOR * mesh.suspicion_s
        is_at_rest = state.is_paused or state.is_leaving or bool(run.alarm.blocked) or state.me not in mesh.on_duty
        is_late = now - since > YIELD_AFTER * mesh.suspicion_s
        return is_late and is_refused and not is_at_rest and not state.calls and not run.is_others_work(now, mesh)


def may_go_on(run: Run, known: Mapping[RunId, Run]) -> bool:
    """Whether a run that gave way is to be taken up: the one it gave way to has ended, gave way too, or waits for a
    host. Of one that is unknown here nothing follows."""
    other = known.get(runs.yields_to(run.status) or RunId(""))
    return other is not None and (not other.is_active or bool(other.alarm.blocked))


def those_waiting(known: Iterable[Run]) -> list[Run]:
    """The runs that gave way."""
    return [run for run in known if runs.yields_to(run.status) is not None]


def _place(run: Run) -> tuple[bool, RunId]:
    """In the order of runs; one that nobody can go on with comes after all others."""
    return bool(run.alarm.blocked), run.id
