"""Ends: what is committed, what is freed, and when a run is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.controllers.checkpoints import COMMIT_WAIT, Checkpoints
from dflow_protocols.controllers.ending import Ending
from dflow_protocols.events import Drop, Start, Stop
from dflow_protocols.names import UPDATE, Once, Partition, TaskKey
from dflow_protocols.run_state import outbox
from dflow_protocols.run_state import status as runs
from dflow_protocols.steps.duty import SAVE, Duty
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import Header, Seal
from dflow_protocols.work import SaveWork
from tests.unit.protocols.books import RUN, SPEC, ZERO, finished_partition, heartbeat, learn, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

ONE = version("one", ZERO, samples=4)
LAST = version("last", ONE, samples=4)


class Ends:
    """A run at the version `own`, and what else this node still holds."""

    def __init__(self, *held: Header, saved: tuple[Header, ...] = ()) -> None:
        self.run = ARun(own=None)
        for header in held:
            self.run.hold(header)
        self.checkpoints = Checkpoints(self.run.state, self.run.calls, self.run.outbox, saved)
        self.ending = Ending(self.run.state, self.run.calls, self.checkpoints, self.run.outbox)

    def reconcile(self, now: float = 0.0) -> list[Duty]:
        return self.ending.reconcile(now, ALL, self.run.out)


def test_a_version_is_committed_when_two_living_nodes_hold_it() -> None:
    """Then no single death can take it away, and what it was made of may go."""
    ends = Ends(ZERO, ONE)
    ends.reconcile()
    assert ends.run.state.committed_step == 0
    ends.run.state.versions.observe(who(2), heartbeat(ONE))
    ends.reconcile()
    assert ends.run.state.committed_step == 1


def test_where_nobody_else_comes_the_own_copy_on_disk_is_enough_after_a_while() -> None:
    """The last node of a mesh goes on."""
    ends = Ends(ZERO, ONE, saved=(ONE,))
    ends.reconcile(COMMIT_WAIT - 0.1)
    assert ends.run.state.committed_step == 0
    ends.reconcile(COMMIT_WAIT + 0.1)
    assert ends.run.state.committed_step == 1


def test_what_a_committed_version_was_made_of_is_freed_when_none_is_late() -> None:
    """Rollouts of past steps would fill every store."""
    ends = Ends(ZERO, ONE)
    state = ends.run.state
    learn(state.view(0.0, ALL, ZERO), *finished_partition(0), holders=(1,))
    rollouts = {ref.id for record in state.step(0).all_records() for ref in record.shards}
    ends.reconcile()
    assert rollouts <= state.holdings.all_here()
    for node in (2, 3):
        state.versions.observe(who(node), heartbeat(ONE))
    ends.reconcile()
    assert not rollouts & state.holdings.all_here()
    assert list(state.versions.held) == [ONE.id]


def test_a_node_that_is_late_still_finds_the_version_before() -> None:
    """It makes the next one from it, as everybody did."""
    ends = Ends(ZERO, ONE)
    ends.run.state.versions.observe(who(2), heartbeat(ONE))
    ends.run.state.versions.observe(who(3), heartbeat(ZERO))
    ends.reconcile()
    assert list(ends.run.state.versions.held) == [ZERO.id, ONE.id]


@pytest.mark.parametrize("few", [16, 2])
def test_who_is_late_among_few_outweighs_a_replicas_word_that_none_is(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come on duty since. Where members are many nobody but the replicas would know of it."""
    monkeypatch.setattr(outbox, "FEW", few)
    ends = Ends(ZERO, ONE)
    state, nodes = ends.run.state, [who(number) for number in (1, 2, 3)]
    state.step(ONE.step).take_roster(make_roster(ONE.step, 0, nodes, nodes))
    state.versions.observe(who(2), replace(heartbeat(ONE), everywhere=ONE.step))
    state.versions.observe(who(3), heartbeat(ZERO))
    ends.reconcile()
    assert list(state.versions.held) == ([ZERO.id, ONE.id] if few == 16 else [ONE.id])


def test_a_word_of_another_branch_frees_nothing_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps were done there, by other members."""
    monkeypatch.setattr(outbox, "FEW", 2)
    ends, other = Ends(ZERO, ONE), version("other", ZERO, samples=4)
    state, nodes = ends.run.state, [who(number) for number in (1, 2, 3)]
    state.step(ONE.step).take_roster(make_roster(ONE.step, 0, nodes, nodes))
    state.versions.learn(other)
    state.versions.observe(who(2), replace(heartbeat(other), everywhere=ONE.step))
    state.versions.observe(who(3), heartbeat(ONE))
    ends.reconcile()
    assert list(state.versions.held) == [ZERO.id, ONE.id]


def test_the_last_version_is_saved_before_the_run_is_finished() -> None:
    """A run that is over has its result on disk."""
    ends = Ends(ONE, LAST)
    for node in (2, 3):
        ends.run.state.versions.observe(who(node), heartbeat(LAST))
    duties = [duty for now in (0.0, 0.1) for duty in ends.reconcile(now)]
    assert all(isinstance(duty.work, SaveWork) and duty.rank == SAVE for duty in duties)
    assert ends.run.state.is_active


def test_a_run_is_not_finished_by_one_disk_because_a_claim_of_its_node_came_late() -> None:
    """A frame that was held up says that the saver has an older version: it would not be counted among who may save,
    and its disk would be enough for both."""
    ends, nodes = Ends(LAST), [who(number) for number in (1, 2, 3)]
    step, evaluated = ends.run.state.step(LAST.step), Seal(SPEC, LAST.step, LAST.id, LAST.id, UPDATE, 0, 0, ())
    step.take_roster(make_roster(LAST.step, 0, nodes, nodes))
    step.keep(evaluated)
    step.settled.add(evaluated.id)
    ends.run.state.commit(LAST.step)
    ends.checkpoints.learn(who(2), (LAST.head,))
    ends.run.state.versions.observe(who(2), heartbeat(ZERO))
    for now in (0.0, COMMIT_WAIT - 0.1):
        ends.reconcile(now)
    assert ends.run.state.is_active
    ends.checkpoints.saved(ALL, LAST, "", ends.run.out)
    for now in (COMMIT_WAIT, 2 * COMMIT_WAIT):
        ends.reconcile(now)
    assert not ends.run.state.is_active


def test_a_failed_run_saves_its_newest_version_then_frees_everything() -> None:
    """It may be resumed where it was; until then it costs nobody memory."""
    ends = Ends(ONE)
    ends.run.state.end(runs.FAILED, {"error": "x"})
    begun = ends.run.calls.begin(0.0, Duty(1, TaskKey(1, "roll", Partition(0)), SaveWork(RUN, ONE), (), ()), None, [])
    ends.run.calls.take(begun)
    for now in (1.0, 2.0):
        ends.ending.wind_up(now, mesh(1), ends.run.out)
    (start,) = (action for action in ends.run.out if isinstance(action, Start))
    assert start.work == SaveWork(RUN, ONE)
    assert not ends.run.state.is_cleared
    ends.run.calls.take(start.call)
    ends.ending.wind_up(3.0, mesh(1), ends.run.out)
    assert ends.run.state.is_cleared
    assert ends.run.out[-1] == Drop(RUN, tuple(sorted(ref.id for _, ref in ONE.state)))
    assert ends.run.state.holdings.all_here() == set()


def test_what_still_runs_of_a_cancelled_run_is_stopped_once() -> None:
    """The slot is somebody else's at once."""
    ends = Ends(ONE)
    ends.run.state.end(runs.CANCELLED, {})
    call = ends.run.calls.begin(
        0.0, Duty(1, TaskKey(1, "checkpoint", Once("save")), SaveWork(RUN, ONE), (), ()), ONE, []
    )
    for now in (1.0, 2.0):
        ends.ending.wind_up(now, ALL, ends.run.out)
    assert [action for action in ends.run.out if isinstance(action, Stop)] == [Stop(call)]
