"""What a node's registry makes of attempts, of runs that it hears of, and of what its disk holds of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.events import CancelRequested, Drop, Report, Restored, ResumeRequested, Send, StopRequested
from dflow_protocols.names import NodeId, Once, Partition, TaskKey, run_id
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs import registry
from dflow_protocols.runs.registry import Registry
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.versions.saved import Place, Saved
from dflow_protocols.wire.steps import CheckpointPut, Failure, FailurePut, RunPut, RunStates
from dflow_protocols.work import SaveWork
from tests.unit.protocols.books import version

ME, PEER, THIRD = NodeId("aa" * 16), NodeId("bb" * 16), NodeId("cc" * 16)
PIPELINE = Pipeline.from_dict(warm_then_two(every=1).to_dict())
ROSTER = make_roster(0, 0, (ME, PEER), (ME, PEER))
NAME = run_id(PIPELINE.text_id, PEER, "0")
ACTIVE = RunPut(NAME, runs.ACTIVE, 0, PIPELINE.canonical(), "/spec", (), PEER, "0", ROSTER, b"", False)
LIVING = frozenset((ME, PEER))
AROUND = MeshView(living=LIVING, stable=LIVING, suspicion_s=1.0, incarnation=1, is_gathered=True)
ZERO = version("v0")
ONE = version("v1", ZERO, samples=4)


def test_who_missed_a_failure_enters_the_next_attempt_with_empty_books() -> None:
    """One failure that it remembers and one of the new attempt would make two, and end the run again."""
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    run = known.runs[NAME]
    run.state.versions.hold(ZERO)
    for _, ref in ZERO.state:
        run.state.holdings.keep(ref)
    run.state.failures.record(TaskKey(0, "roll", Partition(0)), ME, "user", "no server")
    out = known.take(1.0, AROUND, PEER, replace(ACTIVE, attempt=1, acknowledge=True))
    again = known.runs[NAME]
    assert (again.status.attempt, again.is_active, again.state.failures.known) == (1, True, {})
    assert again.state.versions.own == ZERO
    assert "run.resumed" in [action.name for action in out if isinstance(action, Report)]
    assert known.take(2.0, AROUND, PEER, replace(ACTIVE, attempt=1)) == []


def test_checkpoints_count_though_the_status_beside_them_cannot_be_read() -> None:
    """A member that can read its own tells of the run; what lies on this disk may be the best there is."""
    saved = Saved(NAME, PIPELINE.id, 1, "toy", ONE, tuple(Place("x", 0) for _ in ONE.state))
    known = Registry(ME, [Restored(b"\x90", 0.0, NAME)], [saved], (), 0.0, None)
    (report,) = known.unreadable
    assert (report.name, report.fields["run"]) == ("run.unreadable", NAME)
    known.take(1.0, AROUND, PEER, ACTIVE)
    assert known.runs[NAME].checkpoints.best == ONE
    assert known.runs[NAME].state.restored


def test_who_leaves_while_a_failed_run_is_being_saved_waits_for_that() -> None:
    """`dflow down` right after a failure must not cost what `dflow resume` would go on from."""
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    run = known.runs[NAME]
    run.state.versions.hold(ONE)
    for _, ref in ONE.state:
        run.state.holdings.keep(ref)
    run.outbox.end(runs.FAILED, {"error": "x"}, AROUND, [])
    run.reconcile(1.0, AROUND, FreeSlots(1))
    assert [type(call.work) for call in run.state.calls.values()] == [SaveWork]
    run.leaving.begin(1.1, AROUND, frozenset())
    run.reconcile(1.1, AROUND, FreeSlots(1))
    assert not run.leaving.is_done(AROUND)
    (call,) = run.state.calls
    run.checkpoints.saved(AROUND, ONE, "step-000001", [])
    del run.state.calls[call]
    run.reconcile(1.2, AROUND, FreeSlots(1))
    assert run.leaving.is_done(AROUND)


def _other(nonce: str) -> RunPut:
    return replace(ACTIVE, run=run_id(PIPELINE.text_id, PEER, nonce), nonce=nonce)


def _cancelled(nonce: str) -> RunPut:
    return runs.ended(_other(nonce), runs.CANCELLED, {})


def test_a_run_whose_end_a_client_waits_for_is_not_forgotten_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is still to be answered, and the next look at who waits would find no run."""
    monkeypatch.setattr(registry, "MAX_RUNS", 2)
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    known.cancel(AROUND, CancelRequested(1, NAME))
    for nonce in ("1", "2"):
        known.take(0.0, AROUND, PEER, _other(nonce))
    again = [action for action in known.put_again(LIVING) if isinstance(action, Send)]
    assert [(put.to, put.message.run) for put in again] == [(PEER, NAME)]


def test_what_is_still_to_be_freed_is_forgotten_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the store of a run that nobody knows lies there for ever."""
    monkeypatch.setattr(registry, "MAX_RUNS", 2)
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    run, (_, ref) = known.runs[NAME], ZERO.state[0]
    known.take(0.0, AROUND, PEER, _cancelled("1"))
    known.runs[_cancelled("1").run].reconcile(0.0, AROUND, FreeSlots(0))
    run.state.holdings.keep(ref)
    known.take(0.0, AROUND, PEER, runs.ended(ACTIVE, runs.CANCELLED, {}))
    known.take(0.0, AROUND, PEER, _other("2"))
    assert known.runs.keys() == {NAME, _other("2").run}
    dropped = [action for action in run.reconcile(0.0, AROUND, FreeSlots(0)) if isinstance(action, Drop)]
    assert [ref.id in drop.shards for drop in dropped] == [True]


def test_a_full_table_takes_up_no_end_of_a_run_that_is_unknown_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members whose tables are full would remind each other of what each forgot last, and write it, without end; and
    what was stopped, to be resumed, would go for it. A run that is active still finds a place."""
    monkeypatch.setattr(registry, "MAX_RUNS", 2)
    stopped = runs.ended(ACTIVE, runs.FAILED, {runs.STOPPED: True})
    known = Registry(ME, [Restored(runs.dump(status)) for status in (_cancelled("1"), stopped)], (), (), 0.0, None)
    ended = _cancelled("2")
    assert known.compare(PEER, RunStates(((ended.run, ended.state, runs.outcome_id(ended)),))) == []
    assert known.take(0.0, AROUND, PEER, ended) == []
    assert known.runs.keys() == {_cancelled("1").run, NAME}
    known.take(0.0, AROUND, PEER, _other("3"))
    assert known.runs.keys() == {NAME, _other("3").run}


def test_to_resume_a_run_makes_no_other_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a place in the table already."""
    monkeypatch.setattr(registry, "MAX_RUNS", 2)
    stopped = runs.ended(ACTIVE, runs.FAILED, {runs.STOPPED: True})
    known = Registry(ME, [Restored(runs.dump(status)) for status in (_cancelled("1"), stopped)], (), (), 0.0, None)
    known.resume(0.0, AROUND, ResumeRequested(1, NAME))
    assert known.runs.keys() == {_cancelled("1").run, NAME}
    assert known.runs[NAME].is_active


def test_what_was_said_in_an_earlier_attempt_counts_in_none_after_it() -> None:
    """A frame may come late: a failure that was mended would end the run again, and a disk that was cleared would be
    waited for."""
    late = FailurePut(NAME, 0, (Failure(TaskKey(0, "init", Once("init")), PEER, 1, "user", "aa" * 32, "no server"),))
    known = Registry(ME, [Restored(runs.dump(replace(ACTIVE, attempt=1)))], (), (), 0.0, None)
    run = known.runs[NAME]
    run.take(1.0, AROUND, PEER, late)
    run.take(1.0, AROUND, PEER, CheckpointPut(NAME, 0, (ONE.head,)))
    assert (run.state.failures.known, run.checkpoints.others) == ({}, {})
    run.take(1.0, AROUND, PEER, replace(late, attempt=1))
    run.take(1.0, AROUND, PEER, CheckpointPut(NAME, 1, (ONE.head,)))
    assert len(run.state.failures.known) == 1
    assert run.checkpoints.others == {PEER: (ONE.head,)}


@pytest.mark.parametrize("invented", [[1], [runs.ATTEMPTS - 1], [runs.ATTEMPTS // 2], [1 << 18, 1 << 19, 1023 << 10]])
def test_whatever_attempt_a_member_invents_the_run_can_be_resumed_everywhere(invented: list[int]) -> None:
    """Were there a last one, whoever said it would end the run for good, also after its key was struck out."""
    there = [Registry(node, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None) for node in (ME, PEER)]
    for attempt in invented:
        for known in there:
            known.take(1.0, AROUND, THIRD, replace(ACTIVE, state=runs.FAILED, attempt=attempt))
    asked, other = there
    for number in range(3):
        if not asked.runs[NAME].is_active:
            asked.resume(2.0, AROUND, ResumeRequested(number, NAME))
        other.take(2.0, AROUND, ME, asked.runs[NAME].status)
        statuses = [known.runs[NAME].status for known in there]
        assert [status.state for status in statuses] == [runs.ACTIVE] * 2
        assert statuses[0].attempt == statuses[1].attempt
        asked.stop(AROUND, StopRequested(number, NAME))


@pytest.mark.parametrize("request_type", [CancelRequested, StopRequested])
def test_how_far_a_run_came_is_known_after_a_restart(request_type: type[CancelRequested] | type[StopRequested]) -> None:
    """What it was at lay in memory, and its checkpoints may be older, or gone: it would be shown as never begun."""
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    run = known.runs[NAME]
    run.state.versions.hold(ONE)
    event = request_type(1, NAME)
    known.cancel(AROUND, event) if isinstance(event, CancelRequested) else known.stop(AROUND, event)
    restarted = Registry(ME, [Restored(runs.dump(run.status))], (), (), 0.0, None)
    assert (run.summary()["step"], restarted.runs[NAME].summary()["step"]) == (1, 1)


def test_who_knows_less_of_a_run_than_others_says_nothing_of_how_far_it_came() -> None:
    """A node that was just started is asked to cancel it: that it knows of no step yet is no word on the run."""
    known = Registry(ME, [Restored(runs.dump(ACTIVE))], (), (), 0.0, None)
    known.cancel(AROUND, CancelRequested(1, NAME))
    assert "step" not in runs.outcome(known.runs[NAME].status)
