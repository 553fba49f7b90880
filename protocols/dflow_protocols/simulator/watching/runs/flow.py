"""A run flows: while all is well nobody waits for what is here, and nothing waits for anybody who is idle.

The bounds are what drawn worlds take at most, doubled and more; each is far below what a wait that gives in would take.
"""

from __future__ import annotations

from ....events import Send
from ....names import NodeId, RunId, SealId, TaskKey
from ....pipeline.spec import Pipeline
from ....runs.anti_entropy import REFRESH
from ....wire.steps import Seal, SealPut, StealRefuse
from ....work import ChainWork
from ...model.host import Host
from ...world import World
from ..checker import Checker, Seen, Steady, is_small, node_of, state_of

SETTLES_S = 0.5  # a round trip to the replicas
SAID_AGAIN = 3 * REFRESH  # suspicion times; at the second look, as the first may be just after the node moved on
TAKEN_S = 0.5  # a theft: far less than the orphan rule takes
STILL_S = 2.0  # nothing of a run is in any slot
STEP_S = 8.0  # from one version to the next: a step of the toy pipelines takes one or two
AT_EASE_S = 6.0  # after which no wait is left of what struck before


class Flow(Checker):
    """`seal_settles`, `slots_filled`, `never_still`, `step_in_time`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._put: dict[SealId, tuple[RunId, Seal, float]] = {}  # seals that are to be settled, since when
        self._still: dict[RunId, float] = {}  # since when nothing of it runs
        self._waits: dict[RunId, float] = {}  # since when partitions of it wait and a slot is idle
        self._asks_again: dict[NodeId, float] = {}  # when whoever was refused work may ask for some again
        self._best: dict[RunId, tuple[int, float]] = {}  # the furthest version that anybody holds, since when

    @property
    def sees(self) -> Seen:
        return {Send: self._sent}

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            if isinstance(message, SealPut) and not message.settled:
                self._put.setdefault(message.seal.id, (message.run, message.seal, self.world.now))
            if isinstance(message, StealRefuse):
                self._asks_again[send.to] = self.world.now + message.wait_s

    def inspect(self) -> None:
        self._check_seals()
        for run in self.world.runs:
            active = [
                host for host in self.world.live() if (state := state_of(host, run)) is not None and state.is_active
            ]
            if not active:
                self._best.pop(run, None)  # who takes it up again may begin anew
            self._check_slots(run, active)
            if active and self._flows(run, active):
                self._check_run(run, active)
            else:
                self._still.pop(run, None)

    def _flows(self, run: RunId, active: list[Host]) -> bool:
        """Whether nothing is in the way of a run, and no wait is left that something was."""
        states = [state for host in active if (state := state_of(host, run)) is not None]
        has_files = all(state.ability.are_files_known and not state.ability.withdrawn for state in states)
        has_begun = any(state.versions.own is not None for state in states) and not any(
            state.is_paused for state in states
        )
        at_ease_s = min(self.steady.seconds, self.world.now - self.world.disturbed_until)
        is_over = not self.world.struck or at_ease_s > AT_EASE_S
        return self.steady.seconds > 0.0 and is_over and has_files and has_begun

    def _check_seals(self) -> None:
        for run, seal, since in list(self._put.values()):
            waited, steady_s = self.world.now - since, self.steady.seconds
            if min(waited, steady_s) <= SETTLES_S:
                continue
            if waited >= steady_s and steady_s <= SETTLES_S + SAID_AGAIN * self._suspicion_s:
                continue  # what was lost before all was well is said again first
            if any(_is_settling(host, run, seal) for host in self.world.live()):
                raise self.broken(f"seal {seal.id[:6]} is put for {waited:.1f} s and not settled", "seal_settles")
            del self._put[seal.id]

    @property
    def _suspicion_s(self) -> float:
        return max(node_of(host).membership.suspicion_s() for host in self.world.live())

    def _check_slots(self, run: RunId, active: list[Host]) -> None:
        """Whether partitions wait in a slot's queue while a slot elsewhere is idle."""
        pipeline, idle = self.world.engines[run].pipeline, [host for host in active if not host.calls]
        idle = [host for host in idle if self._asks_again.get(host.id, 0.0) < self.world.now]
        pairs = [
            (host, other)
            for host in (active if idle else ())
            for task, work in _queued(host, run)
            for other in idle
            if _is_able(other, run, pipeline, work) and not _has_failed(other, run, task)
        ]
        if not (pairs and self.steady.seconds > 0.0):
            self._waits.pop(run, None)
        elif self.world.now - self._waits.setdefault(run, self.world.now) > TAKEN_S:
            what = f"partitions wait at {pairs[0][0].name} for {TAKEN_S:g} s, and {pairs[0][1].name} is idle"
            raise self.broken(what, "slots_filled")

    def _check_run(self, run: RunId, active: list[Host]) -> None:
        now, held = self.world.now, [state.versions.own for host in active if (state := state_of(host, run))]
        step = max(own.step for own in held if own is not None)
        before, since = self._best.get(run, (step, now))
        since = since if step == before else now
        self._best[run] = step, since
        if any(call.run == run for host in active for call in host.calls.values()):
            self._still.pop(run, None)
        elif now - self._still.setdefault(run, now) > STILL_S:
            raise self.broken(f"nothing of a run in step {step} is at work for {STILL_S:g} s", "never_still")
        if self._is_usual(run) and min(now - since, self.steady.seconds) > STEP_S:
            raise self.broken(f"step {step} takes more than {STEP_S:g} s", "step_in_time")

    def _is_usual(self, run: RunId) -> bool:
        """Whether it is as large as most, alone, and not held up by what fails everywhere."""
        pipeline = self.world.engines[run].pipeline
        return is_small(pipeline) and pipeline.on_poison == "fail" and len(self.world.runs) == 1


def _is_settling(host: Host, run: RunId, seal: Seal) -> bool:
    """Whether a node is at a seal's step, has it kept by the replicas, and acts on none yet."""
    state = state_of(host, run)
    if state is None or state.position is None or state.position.id != seal.parent or not state.is_active:
        return False
    step = state.step(seal.step)
    acted_on = [step.seals[name] for name in step.settled if name in step.seals]
    return seal.id in step.acks and all((each.kind, each.parent) != (seal.kind, seal.parent) for each in acted_on)


def _queued(host: Host, run: RunId) -> list[tuple[TaskKey, ChainWork]]:
    """Partitions of a run that wait for a slot of the node."""
    waiting = () if host.process is None else host.process.slots.waiting
    return [(call.task, call.work) for call in waiting if call.run == run and isinstance(call.work, ChainWork)]


def _has_failed(host: Host, run: RunId, task: TaskKey) -> bool:
    """Whether what others wait with came to nothing there."""
    state = state_of(host, run)
    return state is not None and host.id in state.failures.nodes(task)


def _is_able(host: Host, run: RunId, pipeline: Pipeline, work: ChainWork) -> bool:
    """Whether a node may do what others wait with, and offers what that requires."""
    state = state_of(host, run)
    if state is None or state.ability.withdrawn or state.is_leaving or not state.ability.may_run(work.stages):
        return False
    return all(word in host.roles for stage in work.stages for word in pipeline.stage(stage).requires)
