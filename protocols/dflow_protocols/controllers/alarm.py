"""Alarms: what a person should be told of a run that neither fails nor gets anywhere.

Two things: a call of a unit that this node does again and again in one step, and a step in which nothing new came about
for long. New is what was not there before: a version, a settled seal, a task's first record, the first chunks of a
shard. Doing a thing for the first time is no stall however long it takes, since an engine that hangs is killed; doing
it once more is. Only the step's replicas judge, as they know who claims what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..claiming.ability import REASON_CHARACTERS
from ..events import Action, Report
from ..names import MANIFEST, UPDATE, Block, NodeId, Partition, TaskKey
from ..pipeline.plan import Chain
from ..run_state.calls import FreeSlots
from ..run_state.run_state import Call, MeshView, RunState
from ..steps.batch import leaf_homes, slice_records
from ..steps.sealing import chosen, sealed_chains
from ..steps.step import Step
from ..steps.view import StepView, partition_homes
from ..wire.steps import Withdrawal
from ..work import ChainWork
from .advance import UNCOMMITTED
from .checkpoints import Checkpoints
from .stealing import Open, Stealing

REPEATED = 4  # times that a call of a unit is done here in a step before that is told; then at twice as many, and so on
STALLED_AFTER = 30.0  # suspicion times without anything new: longer than all waits that end by themselves
UNITS_NAMED = 3  # of those that are waited for
ALL_DRAINED = "needs a daemon that is not drained"

FILES = "files of the run: "

Waiting = tuple[str, tuple[NodeId, ...]]
"""What is waited for, and of whom."""
_Begun = tuple[TaskKey, str]
"""A unit, and the stage with which a call of it begins: a partition has one for each engine and segment."""


class Alarm:
    """One run's at one node."""

    def __init__(self, state: RunState, checkpoints: Checkpoints, stealing: Stealing) -> None:
        self._state = state
        self._checkpoints = checkpoints
        self._stealing = stealing
        self.blocked = ""  # why no member on duty can go on with the open step, in words
        self._causes: tuple[str, ...] = ()  # of that, as they were told
        self._times: dict[_Begun, int] = {}  # how often a call was done here; of steps that have books
        self._times_from = 0  # the first of these steps
        self._marks: tuple[object, ...] = ()
        self._moved_at = state.opened_at
        self._told: Waiting | None = None  # as the report that stands says

    def done(self, call: Call, out: list[Action]) -> None:
        """A call of the run was done here."""
        begun = _begun(call)
        times = self._times[begun] = self._times.get(begun, 0) + 1
        if times >= REPEATED and times & (times - 1) == 0:
            fields = {"run": self._state.id, "unit": str(call.unit), "times": times}
            out.append(Report("work.repeated", fields, "warning"))

    def needs(self, view: StepView, chains: tuple[Chain, ...], out: list[Action]) -> None:
        """Say what these chains and the training miss as soon as nobody can go on, and when somebody can again."""
        if view.ability.is_everybodys:
            self._block(view.step.number, {}, out)
            return
        trained = [(training.stage,) for training in view.plan.trainings] if chains else []
        missing = {
            word: stage
            for stages in [*(chain.stages for chain in chains), *trained]
            for word, stage in view.ability.lacking(stages, view.on_duty, view.offers).items()
        }
        offers = ", ".join(f"`{word}` (stage {stage})" for word, stage in missing.items())
        causes = {f"needs {offers}": ""} if offers else {}
        for stages in [*trained, *(rest for chain in chains for rest in _barred_rests(view, chain))]:
            causes |= _cause(_barred(view, stages))
        self._block(view.step.number, causes, out)

    def begins(self, mesh: MeshView, out: list[Action]) -> None:
        """There is no version to work from: say if nobody has the files that the first one is made of."""
        run, found = self._state, self._checkpoints
        is_saved = found.best is not None or found.best_elsewhere(mesh.living) is not None  # to load it takes no files
        is_barred = not is_saved and run.ability.without_files(run.me, mesh.on_duty) == mesh.on_duty
        self._block(0, {FILES: run.ability.missing} if is_barred else {}, out)

    def stand_by(self, mesh: MeshView, out: list[Action]) -> None:
        """This node is drained: all that it can say is whether anybody is not."""
        step = self._state.versions.newest_step
        position = self._state.position
        causes = {} if mesh.on_duty else {ALL_DRAINED: ""}
        self._block(position.step if position is not None else step, causes, out)

    def _block(self, step: int, causes: Mapping[str, str], out: list[Action]) -> None:
        """`causes`: what keeps the run, and how that stands in words. Only another cause is told anew."""
        words = "; ".join(f"{cause}{how}" for cause, how in causes.items())
        if self._causes != tuple(causes):
            fields = {"run": self._state.id, "step": step, "why": words or self.blocked}
            out.append(Report("run.blocked", fields, "warning") if words else Report("run.unblocked", fields))
        self.blocked, self._causes = words, tuple(causes)

    def reconcile(self, now: float, mesh: MeshView, free: FreeSlots, out: list[Action]) -> None:
        """Notice whether anything is new, and say when nothing was for long, or is again."""
        run, marks = self._state, self.marks
        if self._times_from != run.freed_before:
            self._times_from = run.freed_before
            self._times = {it: times for it, times in self._times.items() if it[0].step >= run.freed_before}
        is_at_rest = bool(self.blocked) or run.is_paused or run.me not in mesh.on_duty
        if marks != self._marks or is_at_rest or self._is_at_new_work(now, mesh, free):
            self._marks, self._moved_at = marks, now
        self._moved_at = max(self._moved_at, run.holdings.fresh_at)
        limit = STALLED_AFTER * mesh.suspicion_s
        waiting = self._waiting(now, mesh) if now - self._moved_at > limit else None
        if waiting == self._told:
            return
        step = run.position.step if run.position is not None else 0
        if waiting is None:
            out.append(Report("run.unstalled", {"run": run.id, "step": step}))
        else:
            what, whom = waiting
            fields = {"run": run.id, "step": step, "what": what, "whom": ", ".join(whom), "seconds": round(limit)}
            out.append(Report("run.stalled", fields, "warning"))
        self._told = waiting

    @property
    def marks(self) -> tuple[object, ...]:
        """What changes whenever something came about that was not there before."""
        run, position = self._state, self._state.position
        saved = (len(self._checkpoints.mine), sum(len(heads) for heads in self._checkpoints.others.values()))
        if position is None:
            return saved
        step = run.step(position.step)
        return (position.id, len(step.records), len(step.settled), run.committed_step, *saved)

    def _is_at_new_work(self, now: float, mesh: MeshView, free: FreeSlots) -> bool:
        """Whether somebody does something for the first time, or other runs have all slots of this node."""
        run = self._state
        are_others = free.device <= 0 and not run.calls and not mesh.unable
        if are_others or any(not self._times.get(_begun(call)) for call in run.calls.values()):
            return True
        return any(
            self._is_new(step, unit) and any(node != run.me and node in mesh.living for node in claimants)
            for step in run.steps.values()
            for unit in step.claims
            if (claimants := step.claimants(now, unit))
        )

    def _is_new(self, step: Step, unit: TaskKey) -> bool:
        """Whether something of a unit was never done: of a partition, the last of its chain's stages."""
        chains = self._state.plan(step.number).chains
        last = next((chain.stages[-1] for chain in chains if unit.stage == chain.stages[0]), unit.stage)
        return TaskKey(unit.step, last, unit.part) not in step.records

    # What a run waits for -------------------------------------------------------------------------------------------

    def _waiting(self, now: float, mesh: MeshView) -> Waiting | None:
        """None where this node cannot tell."""
        run, opened = self._state, self._stealing.open
        if run.catch_up.target is not None:
            target = run.catch_up.target
            return f"a copy of the version of step {target.step}", run.versions.holders(target.id, mesh.living)
        own = run.versions.own
        if own is None:
            return "a first version", tuple(node for node in run.status.roster.members if node in mesh.living)
        if run.step(own.step).roster is None:
            return "a roster", tuple(sorted(mesh.living))
        view = run.view(now, mesh, own)
        if run.me not in view.replicas:
            return None
        if own.step - run.committed_step >= UNCOMMITTED:
            return "a second holder of its version", tuple(sorted(mesh.living - {run.me}))
        return self._units(view, opened) or self._seal(view)

    def _units(self, view: StepView, opened: Open | None) -> Waiting | None:
        """The unfinished units of the open phase, and who claims them or was dealt them."""
        if opened is None or opened.version != view.trains.id:
            return None
        homes: dict[TaskKey, NodeId | None] = {}
        if opened.batch is not None:
            for leaf, home in leaf_homes(view, opened.batch).items():
                homes[TaskKey(view.step.number, opened.batch.training.stage, Block.of_leaf(leaf))] = home
            if not homes and None in slice_records(view, opened.batch):
                return "the slices of its gradient", tuple(node for node in view.trainers if node in view.living)
        for chain in opened.chains:
            homes |= partition_homes(view, chain)
        if not homes:
            return None
        whom = {node for unit, home in homes.items() for node in view.step.claimants(view.now, unit) or (home,) if node}
        named = ", ".join(str(unit) for unit in list(homes)[:UNITS_NAMED])
        more = f" and {len(homes) - UNITS_NAMED} more" if len(homes) > UNITS_NAMED else ""
        return f"{named}{more}", tuple(sorted(whom))

    def _seal(self, view: StepView) -> Waiting:
        """All units are done: what comes after them, and whose turn it is."""
        run, sealer = self._state, view.succession[:1]
        manifest = None
        if sealed_chains(view, MANIFEST):
            manifest = chosen(view, run.versions, MANIFEST, view.trains.id)
            if manifest is None:
                return "the manifest, or second copies of what it names", sealer
        update = chosen(view, run.versions, UPDATE, manifest.id if manifest is not None else view.trains.id)
        if update is None and (view.trains.step < run.last_step or sealed_chains(view, UPDATE)):
            return "the update seal, or second copies of what it names", sealer
        if view.trains.step < run.last_step:
            return "the slices that its update seal names", tuple(sorted(view.living))
        return "its last version on enough disks", tuple(sorted(view.living))


def _begun(call: Call) -> _Begun:
    return call.unit, call.work.stages[0] if isinstance(call.work, ChainWork) else ""


def _barred(view: StepView, stages: tuple[str, ...]) -> Withdrawal | None:
    return view.ability.barred(stages, view.me, view.on_duty, view.offers)


def _barred_rests(view: StepView, chain: Chain) -> Iterator[tuple[str, ...]]:
    """What is still to be done of a chain's partitions, where nobody may run all of it."""
    if _barred(view, chain.stages) is None:
        return
    parts = [unit.part for unit in partition_homes(view, chain)]
    done = {len(view.progress_of(chain).done[part.index]) for part in parts if isinstance(part, Partition)}
    yield from (chain.stages[count:] for count in sorted(done))


def _cause(bar: Withdrawal | None) -> dict[str, str]:
    if bar is None:
        return {}
    return (
        {FILES: bar.why[:REASON_CHARACTERS]}
        if bar.cause == "files"
        else {f"its code runs nowhere: stage {bar.stage}": ""}
    )
