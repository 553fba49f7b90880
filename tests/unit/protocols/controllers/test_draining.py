"""Draining: what has not begun is given up, what runs goes on, and the run is let go of when others are further."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from dflow_protocols.controllers.draining import Draining
from dflow_protocols.controllers.rosters import Rosters
from dflow_protocols.controllers.sealer import Sealer
from dflow_protocols.controllers.stealing import Open, Stealing
from dflow_protocols.events import Drop, Stop
from dflow_protocols.names import MANIFEST, Partition, TaskKey
from dflow_protocols.steps.duty import CHAIN, Duty
from dflow_protocols.steps.sealing import sealed_chains
from dflow_protocols.wire.steps import ClaimPut, StealAsk, Stolen
from dflow_protocols.work import ChainWork
from tests.unit.protocols.books import ZERO, heartbeat, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun

DRAINED = replace(ALL, drained=frozenset((who(1),)))
ONE = version("one", ZERO, samples=4)


def draining(run: ARun, stealing: Stealing | None = None) -> Draining:
    stealing = stealing or Stealing(run.state, run.calls, run.outbox, None)
    sealer = Sealer(run.state, Rosters(run.state, run.outbox), run.outbox)
    return Draining(run.state, run.calls, sealer, stealing, run.outbox)


def begin(run: ARun, partition: int, *, waits: bool = False) -> int:
    unit = TaskKey(0, "roll", Partition(partition))
    work = ChainWork(0, ("roll",), partition, ())
    return run.calls.begin(0.0, Duty(CHAIN, unit, work, (), (ZERO.id,)), ZERO, [], waits=waits)


def test_what_runs_goes_on_and_what_waits_behind_it_is_given_up() -> None:
    """Half of a rollout is not thrown away because a person wants the host in an hour."""
    run = ARun()
    running, waiting = begin(run, 0), begin(run, 1, waits=True)
    draining(run).reconcile(1.0, DRAINED, run.out)
    assert Stop(waiting) in run.out
    assert list(run.state.calls) == [running]
    claimed = {unit for _, claim in run.told(ClaimPut) for unit in claim.units}  # type: ignore[attr-defined]
    assert claimed == {TaskKey(0, "roll", Partition(0))}


def test_what_was_taken_and_not_begun_is_its_owners_again() -> None:
    """They hear so at once, and need not wait for a lease to end."""
    run = ARun()
    begun, untouched = (TaskKey(0, "roll", Partition(index)) for index in range(2))
    run.state.loans.borrow(who(2), [Stolen(begun, who(3)), Stolen(untouched, who(3))])
    begin(run, 0)
    draining(run).reconcile(1.0, DRAINED, run.out)
    assert list(run.state.loans.borrowed) == [begun]
    assert {to for to, _ in run.told(ClaimPut)} == {who(2), who(3)}


def test_a_claim_is_told_once() -> None:
    """A drained node reconciles as often as any other, and has nothing new to say."""
    run = ARun()
    drain = draining(run)
    begin(run, 0)
    drain.reconcile(1.0, DRAINED, run.out)
    told = len(run.out)
    drain.reconcile(1.1, DRAINED, run.out)
    assert len(run.out) == told


def test_a_version_is_held_until_two_on_duty_are_further() -> None:
    """One of them may be about to die: then this node's is still the best there is."""
    run = ARun()
    run.state.versions.observe(who(2), heartbeat(ONE))
    draining(run).reconcile(1.0, DRAINED, run.out)
    assert run.state.versions.own == ZERO
    run.state.versions.observe(who(3), heartbeat(ONE))
    draining(run).reconcile(2.0, DRAINED, run.out)
    assert run.state.versions.own is None
    assert {shard for action in run.out if isinstance(action, Drop) for shard in action.shards} == {
        ref.id for _, ref in ZERO.state
    }


def test_where_one_is_on_duty_that_one_is_enough() -> None:
    """Of two nodes one is drained: nobody else could hold anything."""
    run = ARun()
    run.state.versions.observe(who(2), heartbeat(ONE))
    draining(run).reconcile(1.0, replace(DRAINED, drained=frozenset((who(1), who(3)))), run.out)
    assert run.state.versions.own is None


def test_what_runs_for_a_step_that_is_over_is_given_up() -> None:
    """Nobody would read it, and the host would be kept for nothing."""
    run = ARun()
    call = begin(run, 0)
    for number in (2, 3):
        run.state.versions.observe(who(number), heartbeat(ONE))
    draining(run).reconcile(1.0, DRAINED, run.out)
    assert Stop(call) in run.out
    assert run.state.versions.own is None


def test_who_let_go_of_a_run_and_begins_it_again_looks_for_no_work_of_the_old_step() -> None:
    """Those who were further died: it makes the same version 0, whose step has no roster here any more."""
    run = ARun()
    stealing = Stealing(run.state, run.calls, run.outbox, Random(0))
    stealing.enter(Open(0, ZERO.id, sealed_chains(run.view(), MANIFEST), None))
    for number in (2, 3):
        run.state.versions.observe(who(number), heartbeat(ONE))
    draining(run, stealing).reconcile(1.0, DRAINED, run.out)
    run.hold(ZERO)
    stealing.seek(2.0, ALL, True, run.out)
    assert run.told(StealAsk) == []
