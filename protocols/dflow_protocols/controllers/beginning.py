"""Beginnings: what a node does about a run of which it holds no version yet.

It copies the best version that a living node claims. After a power cut nobody claims any: then those who have a
checkpoint say so, the best one is loaded by all who have it, and claimed; who has a worse one or none copies it as any
other version. Where there is no checkpoint, version 0 is made: a function of the spec. Where there were some, and none
can be brought back, the run fails and says so.
"""

from __future__ import annotations

from ..events import Action, Report
from ..names import Once, TaskKey, VersionId
from ..ranges import in_order, range_bytes
from ..run_state import references
from ..run_state import status as runs
from ..run_state.calls import Calls, FreeSlots
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.duty import Duty
from ..versions.versions import preference
from ..wire.steps import Failure, Head, Header
from ..work import Done, Failed, InitWork, LoadWork
from .advance import Advance
from .checkpoints import Checkpoints

INIT = TaskKey(0, "init", Once("init"))
SAY_WAIT = 3.0  # suspicion times for the others to say what they hold, and what lies on their disks
LOAD_WAIT = 10.0  # suspicion times for another's better checkpoint to be loaded and claimed; then a worse one will do
MOST_RIVALS = 8  # that are waited for, one after another
MOST_TRIES = 3  # loads of one checkpoint that break for another reason than that it is damaged, then others come first


def load_unit(header: Header) -> TaskKey:
    return TaskKey(header.step, "checkpoint", Once("load"))


class Beginning:
    """One run's begin at one node."""

    def __init__(
        self, state: RunState, calls: Calls, checkpoints: Checkpoints, advance: Advance, outbox: Outbox
    ) -> None:
        self._state = state
        self._calls = calls
        self._checkpoints = checkpoints
        self._advance = advance
        self._outbox = outbox
        self._tries: dict[VersionId, int] = {}
        self._silent_since: float | None = None
        self._rivals: dict[Head, float] = {}  # others' better checkpoints, and since when each is awaited

    def reconcile(self, now: float, mesh: MeshView, free: FreeSlots, out: list[Action]) -> bool:
        """Begin, if it is time for that. True if there is nothing else to do; False: copy what another one holds."""
        run = self._state
        if any(isinstance(call.work, InitWork | LoadWork) for call in run.calls.values()):
            return True
        found = run.versions.best(now, mesh.living)
        best, mine = found[0] if found is not None else None, self._untired()
        zero = InitWork(range_bytes(run.pipeline))
        cannot_make_zero = run.me in run.failures.nodes(INIT) or run.ability.missing != ""
        is_worth_copying = best is not None and (best.step > 0 or cannot_make_zero)
        if best is not None and is_worth_copying and (mine is None or preference(best) <= preference(mine.head)):
            return False
        mine = mine or self._checkpoints.best  # that engines break over it says nothing of it: never begin anew instead
        work = zero if mine is None else LoadWork(run.id, mine)
        if free.of(work) <= 0 or run.is_leaving or not self._calls.may_begin(work):
            return True
        if mine is None:
            if self._is_time_for_zero(now, mesh, best) and self._checkpoints.is_lost:
                self._stop_for_good(mesh, out)
            elif self._is_time_for_zero(now, mesh, best):
                self._begin(now, Duty(0, INIT, work, (), ()), out)
        elif best is not None or self._is_best_of_all(now, mesh, mine.head):
            self._begin(now, Duty(0, load_unit(mine), work, (), (mine.id,)), out)
        return True

    def _begin(self, now: float, duty: Duty, out: list[Action]) -> None:
        if self._state.retry_at.get(duty.unit, now) <= now:
            self._calls.begin(now, duty, None, out)

    def _stop_for_good(self, mesh: MeshView, out: list[Action]) -> None:
        """What was trained is lost, unless a disk is mended: whether to begin again is the owner's to say."""
        lost = self._checkpoints.story
        what = f"no checkpoint of it can be brought back ({lost}); nothing is trained again unless told: mend the disk"
        hint = "and `dflow resume RUN`, or begin again with `dflow resume RUN --from-start`"
        self._outbox.end(runs.FAILED, {"error": f"{what} {hint}"}, mesh, out)

    def _untired(self) -> Header | None:
        """The best own checkpoint whose load did not break too often."""
        mine = self._checkpoints.mine.values()
        fresh = [header for header in mine if self._tries.get(header.id, 0) < MOST_TRIES]
        return min(fresh, key=lambda header: preference(header.head), default=None)

    # When -----------------------------------------------------------------------------------------------------------

    def _is_time_for_zero(self, now: float, mesh: MeshView, best: Head | None) -> bool:
        run = self._state
        if self._is_outdone(now, mesh, None):
            return False
        if best is not None or (run.me in run.status.roster.members and not run.restored):
            return True  # somebody has version 0, or the run was just submitted to this node among others
        if not run.restored:
            return now - run.opened_at > SAY_WAIT * mesh.suspicion_s
        return self._have_all_spoken(now, mesh)

    def _is_best_of_all(self, now: float, mesh: MeshView, mine: Head) -> bool:
        return self._have_all_spoken(now, mesh) and not self._is_outdone(now, mesh, mine)

    def _have_all_spoken(self, now: float, mesh: MeshView) -> bool:
        """Whether all who were here before have come, or were waited for, and said what they have."""
        if not mesh.is_gathered:
            return False
        if self._silent_since is None:
            self._silent_since = now
        silent = mesh.living - self._checkpoints.others.keys() - {self._state.me}
        return not silent or now - self._silent_since > SAY_WAIT * mesh.suspicion_s

    def _is_outdone(self, now: float, mesh: MeshView, mine: Head | None) -> bool:
        """Whether a living node has a better checkpoint, and should soon have loaded it."""
        rival = self._checkpoints.best_elsewhere(mesh.living)
        if rival is None or (mine is not None and preference(mine) <= preference(rival)):
            return False
        if rival not in self._rivals and len(self._rivals) >= MOST_RIVALS:
            return False  # somebody says whatever comes to mind
        return now - self._rivals.setdefault(rival, now) <= LOAD_WAIT * mesh.suspicion_s

    # What came of it ------------------------------------------------------------------------------------------------

    def loaded(self, now: float, mesh: MeshView, header: Header, done: Done, out: list[Action]) -> None:
        """A checkpoint is back in memory: hold it, if its bytes are those of the version."""
        run = self._state
        made = in_order(entry for each in done.made for entry in each.outputs)
        if made != header.state:
            references.free(run, [ref.id for _, ref in made], references.all_records(run), out)
            self._checkpoints.refuse(mesh, header, "its bytes are not those of the version", out)
            return
        run.versions.hold(header)
        out.append(
            Report("checkpoint.loaded", {"run": run.id, "step": run.told_step(header.step), "version": header.id})
        )
        self._advance.moved(now, mesh, None, {}, out)

    def load_failed(
        self, now: float, mesh: MeshView, header: Header, failed: Failed, out: list[Action]
    ) -> Failure | None:
        """A checkpoint could not be loaded. One that is damaged is passed over at once, another one after a few tries.
        Where no checkpoint is left that was not tried, the node failed to begin: gives what it has to say of that."""
        run = self._state
        if failed.kind == "damaged":
            self._checkpoints.refuse(mesh, header, failed.error, out)
            return None
        self._tries[header.id] = self._tries.get(header.id, 0) + 1
        if self._untired() is not None:
            return None
        run.retry(load_unit(header), now + LOAD_WAIT / 2 * mesh.suspicion_s)
        return run.failures.record(INIT, run.me, failed.kind, f"checkpoint of step {header.step}: {failed.error}")
