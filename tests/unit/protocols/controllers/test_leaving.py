"""Leaving: what runs is given back at once, what only this node holds is handed over, and its version is saved."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.controllers.checkpoints import Checkpoints
from dflow_protocols.controllers.leaving import Leaving
from dflow_protocols.controllers.stealing import Stealing
from dflow_protocols.events import Send, Start, Stop
from dflow_protocols.names import Once, Partition, Slice, TaskKey
from dflow_protocols.steps.duty import CHAIN, SLICE, Duty
from dflow_protocols.wire.steps import ClaimPut, Keep
from dflow_protocols.work import ChainWork, SaveWork, SliceWork
from tests.unit.protocols.books import RUN, ZERO, heartbeat, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

ONE = version("one", ZERO, samples=4)


def leaving(run: ARun) -> Leaving:
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    stealing = Stealing(run.state, run.calls, run.outbox, None)
    return Leaving(run.state, run.calls, checkpoints, stealing, run.outbox)


def begin_partition(run: ARun) -> int:
    unit = TaskKey(0, "roll", Partition(0))
    return run.calls.begin(0.0, Duty(CHAIN, unit, ChainWork(0, ("roll",), 0, ()), (), (ZERO.id,)), ZERO, [])


def test_what_runs_is_stopped_and_no_longer_claimed() -> None:
    """Others take it up at once, instead of waiting for a claim to end."""
    run = ARun()
    run.state.versions.observe(who(2), heartbeat(ZERO))
    call = begin_partition(run)
    run.out += leaving(run).begin(1.0, ALL, frozenset())
    assert Stop(call) in run.out
    assert run.state.is_leaving
    assert {to for to, claim in run.told(ClaimPut) if claim == ClaimPut(RUN, 0, ())} == {who(2), who(3)}


def test_who_slept_and_lost_its_devices_claims_nothing_before_it_knows_more() -> None:
    """It still sums; but whose that is now it has yet to hear."""
    run = ARun()
    unit, work = TaskKey(0, "learn", Slice(0, 1)), SliceWork(0, "learn", 0, 1, 4, (), 1)
    run.calls.begin(0.0, Duty(SLICE, unit, work, (), (ZERO.id,)), ZERO, [])
    run.out += leaving(run).stand_aside(1.0, replace(ALL, is_rejoining=True))
    assert run.told(ClaimPut) == []
    run.out += leaving(run).stand_aside(1.0, ALL)
    assert {claim for _, claim in run.told(ClaimPut)} == {ClaimPut(RUN, 0, (unit,))}


def test_a_checkpoint_that_is_being_written_is_finished() -> None:
    """It may be the only copy that is left when all leave."""
    run = ARun(own=ONE)
    save = run.calls.begin(0.0, Duty(0, TaskKey(1, "checkpoint", Once("save")), SaveWork(RUN, ONE), (), ()), ONE, [])
    assert not any(isinstance(action, Stop) for action in leaving(run).begin(1.0, ALL, frozenset()))
    assert list(run.state.calls) == [save]


def test_a_version_that_nobody_else_holds_is_handed_to_a_living_member() -> None:
    """Else a node that leaves in good order would take the run's weights with it."""
    run = ARun()
    leave = leaving(run)
    run.out += leave.begin(1.0, ALL, frozenset())
    ((keeper, keep),) = run.told(Keep)
    assert keeper in (who(2), who(3))
    assert keep == Keep(RUN, tuple(ref for _, ref in ZERO.state))
    assert not leave.is_done(ALL)
    run.state.holdings.credit(who(2), [ref.id for _, ref in ZERO.state])
    assert leave.is_done(ALL)


def test_another_member_is_asked_while_the_first_does_not_answer() -> None:
    """The one that was asked may be about to leave, too."""
    run = ARun()
    leave = leaving(run)
    for _ in range(2):
        leave.hand_over(ALL, run.out)
    assert {to for to, _ in run.told(Keep)} == {who(2), who(3)}


def test_who_is_alone_saves_its_version_and_may_go() -> None:
    """A site that is switched off, node by node, loses no step."""
    run, alone = ARun(own=ONE), mesh(1)
    leave = leaving(run)
    leave.begin(1.0, alone, frozenset())
    leave.reconcile(1.0, alone, run.out)
    (start,) = (action for action in run.out if isinstance(action, Start))
    assert start.work == SaveWork(RUN, ONE)
    assert not leave.is_done(alone)
    run.calls.take(start.call)
    leave.reconcile(2.0, alone, run.out)
    assert leave.is_done(alone)
    assert not any(isinstance(action, Send) for action in run.out)
