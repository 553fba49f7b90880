"""The state of a run: its verbs change what they say and no more, and what is asked of it changes nothing."""

from __future__ import annotations

from copy import deepcopy

from dflow_protocols.names import Partition, TaskKey
from dflow_protocols.run_state import references
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.run_state import MAX_KEPT, STEPS_AHEAD
from tests.unit.protocols.books import RUN, ZERO, finished_partition, heartbeat, learn, shard, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

ONE = version("one", ZERO, samples=4)


def test_what_is_asked_changes_nothing() -> None:
    """A question whose answer depends on who asked before cannot be reasoned about."""
    run = ARun()
    run.view()
    before = deepcopy(run.state)
    run.view(1.0, mesh(1, 2))
    _ = run.state.position, run.state.is_active, run.state.is_near(1), run.state.plan(0), run.state.persist()
    references.needed(run.state, ())
    after = deepcopy(run.state)  # as a copy's sets may be in another order than the original's
    assert repr(after.steps) == repr(before.steps)
    assert repr(after.loans) == repr(before.loans)
    assert repr(after.holdings) == repr(before.holdings)


def test_a_node_works_from_what_it_copies_else_from_its_own_newest() -> None:
    """Whoever copies a better version has given up its own branch."""
    run = ARun()
    assert run.state.position == ZERO
    run.state.versions.learn(ONE)
    run.state.catch_up.target = ONE
    assert run.state.position == ONE


def test_books_are_kept_of_steps_that_somebody_can_be_at() -> None:
    """A member that speaks of step a million must not fill the memory."""
    run = ARun()
    assert [number for number in range(-1, 9) if run.state.is_near(number)] == list(range(STEPS_AHEAD + 1))
    run.state.free_before(1)
    assert not run.state.is_near(0)
    run.state.versions.observe(who(2), heartbeat(ONE))
    assert run.state.is_near(run.state.last_step)


def test_what_goes_with_the_books_of_a_step() -> None:
    """Its records, failures, partitions left out and second tries."""
    run, task = ARun(), TaskKey(0, "roll", Partition(0))
    learn(run.view(), *finished_partition(0))
    run.state.failures.record(task, who(1), "user", "x")
    run.state.retry(task, 9.0)
    run.state.free_before(1)
    assert (run.state.steps, run.state.failures.known, run.state.retry_at) == ({}, {}, {})


def test_of_a_partitions_outputs_all_but_the_last_have_more_coming() -> None:
    """Who reads a partition reads all of it: a look at each output would find nothing to do but at the last."""
    run, records = ARun(), finished_partition(0)
    learn(run.view(), *records, holders=(2,))
    refs, other = [ref for record in records for ref in record.shards], ZERO.state[0][1]
    for ref in (*refs, other):
        run.state.holdings.want(0.0, ref, ALL.living, run.out)
    found = []
    for ref in refs:
        run.state.holdings.fetched(0.0, ref.id, (0, 1))
        found.append(run.state.is_more_coming(ref.id))
    assert found == [True, True, False]
    assert not run.state.is_more_coming(other.id)


def test_a_run_that_ended_stays_ended_whatever_is_heard_later() -> None:
    """Status only goes up: else two nodes would switch it on and off for ever."""
    run = ARun()
    active, before = run.state.status, run.state.revision.number
    run.state.end(runs.CANCELLED, {})
    assert not run.state.take_status(active)
    assert not run.state.is_active
    assert run.state.revision.number == before + 1


def test_a_shard_that_the_store_lost_takes_its_versions_with_it() -> None:
    """A version that is claimed must be there whole."""
    run = ARun()
    run.hold(ONE)
    run.state.lose(5.0, ONE.state[0][1].id)
    assert list(run.state.versions.held) == [ZERO.id]
    assert run.state.advanced_at == 5.0


def test_promises_to_members_that_left_are_bounded() -> None:
    """Nobody fills another's memory by leaving."""
    run = ARun()
    run.state.keep([shard(str(number)) for number in range(MAX_KEPT + 9)], who(2))
    assert len(run.state.keep_for) == MAX_KEPT
    run.state.kept(shard("0"), who(2))
    assert len(run.state.keep_for) == MAX_KEPT - 1


def test_what_a_dead_node_held_is_gone() -> None:
    """A copy that nobody can bring is no copy."""
    run = ARun()
    run.state.holdings.credit(who(2), [ZERO.state[0][1].id])
    run.state.versions.observe(who(2), heartbeat(ONE))
    run.state.forget(who(2))
    assert run.state.holdings.live_holders(ZERO.state[0][1].id, ALL.living) == (who(1),)
    assert run.state.versions.heads == {}


def test_nothing_is_freed_that_something_else_still_needs() -> None:
    """A shard is named by its bytes, so one of them may have several ends."""
    run = ARun()
    both = ZERO.state[0][1]
    run.state.holdings.keep(shard("alone"))
    references.free(run.state, [both.id, shard("alone").id], (), run.out)
    assert both.id in run.state.holdings.local
    assert shard("alone").id not in run.state.holdings.local
    assert run.state.id == RUN
