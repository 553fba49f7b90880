"""Calls: free slots get what is due first and has its inputs here, and what is given up is stopped."""

from __future__ import annotations

from dflow_protocols.events import Fetch, Start, Stop, Trim
from dflow_protocols.names import Block, Once, Partition, Slice, TaskKey
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.steps.duty import BLOCK, CHAIN, SLICE, Duty
from dflow_protocols.work import BlockWork, ChainWork, SaveWork, SliceWork
from tests.unit.protocols.books import RUN, ZERO, shard, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun

ONE = version("one", ZERO, samples=4)


def rollout(partition: int, *needs: str) -> Duty:
    unit = TaskKey(0, "roll", Partition(partition))
    work = ChainWork(0, ("roll",), partition, ())
    return Duty(CHAIN, unit, work, tuple((shard(name), None) for name in needs), (ZERO.id,))


def started(run: ARun) -> list[TaskKey]:
    return [action.task for action in run.out if isinstance(action, Start)]


def test_one_more_partition_waits_behind_what_runs_in_each_slot() -> None:
    """The slot need not wait for the loop; more would be kept from others that are idle."""
    run = ARun()
    assert run.calls.start(0.0, ALL, [rollout(number) for number in range(4)], FreeSlots(1), run.out)
    assert [str(unit) for unit in started(run)] == ["0/roll/p0", "0/roll/p1"]
    assert [call.waits for call in run.state.calls.values()] == [False, True]
    queued = list(run.state.calls)[1]
    run.calls.began(queued)
    assert not run.state.calls[queued].waits


def test_inputs_that_are_not_here_are_brought_before_the_work_begins() -> None:
    """An engine reads mapped shards; it never waits for a network."""
    run = ARun()
    run.state.holdings.credit(who(2), [shard("input").id])
    assert not run.calls.start(0.0, ALL, [rollout(0, "input")], FreeSlots(1), run.out)
    assert [action.ref for action in run.out if isinstance(action, Fetch)] == [shard("input")]


def test_what_came_to_nothing_is_not_tried_again_before_its_time() -> None:
    """The same at once would fail the same."""
    run = ARun()
    run.state.retry(rollout(0).unit, 5.0)
    assert not run.calls.start(4.9, ALL, [rollout(0)], FreeSlots(1), run.out)
    assert run.calls.start(5.0, ALL, [rollout(0)], FreeSlots(1), run.out)


def test_what_found_no_room_is_tried_as_soon_as_there_is_some() -> None:
    """Time says nothing of space."""
    run = ARun()
    run.state.retry(rollout(0).unit, 5.0)
    run.calls.found_no_room(rollout(0).unit)
    assert run.calls.is_starved
    run.calls.room_made()
    assert not run.calls.is_starved
    assert run.calls.start(0.0, ALL, [rollout(0)], FreeSlots(1), run.out)


def test_the_second_try_of_user_code_comes_before_anything_alike() -> None:
    """A function that never returns costs the time of two tries, however many units wait for it."""
    run = ARun()
    run.state.failures.record(rollout(2).unit, who(1), "user", "hangs")
    run.calls.start(0.0, ALL, [rollout(number) for number in range(4)], FreeSlots(1), run.out)
    assert started(run)[0] == rollout(2).unit
    (first, *_) = (action for action in run.out if isinstance(action, Start))
    assert first.fresh


def test_a_work_on_shards_alone_takes_no_slot_of_a_device() -> None:
    """An optimizer keeps no GPU from sampling; where the host has no slots of its own, there is one kind for all."""
    block, update = BlockWork(0, "learn", 0, 4, (), (), ()), SliceWork(0, "learn", 0, 1, 4, (), 1)
    assert FreeSlots.beside(2, 1, [block, update]) == FreeSlots(1, 0)
    assert FreeSlots.beside(2, 0, [block, update]) == FreeSlots(0)
    apart, shared = FreeSlots(1, 1), FreeSlots(1)
    for free in (apart, shared):
        free.take(update)
    assert (apart.of(update), apart.of(block)) == (0, 1)
    assert (shared.of(update), shared.of(block)) == (0, 0)


def test_an_update_begins_while_rollouts_have_every_device() -> None:
    """Both are due at once where several runs share a mesh, or an evaluation lasts."""
    run = ARun()
    update = Duty(SLICE, TaskKey(0, "learn", Slice(0, 1)), SliceWork(0, "learn", 0, 1, 4, (), 1), (), (ZERO.id,))
    assert run.calls.start(0.0, ALL, [rollout(0), rollout(1), update], FreeSlots(0, 1), run.out)
    assert started(run)[0] == update.unit
    assert not run.state.calls[1].waits


def test_what_works_from_another_version_is_stopped_but_saves_are_not() -> None:
    """Its result would be of weights that nobody trains from any more; a checkpoint is worth having all the same."""
    run = ARun()
    stale = run.calls.begin(0.0, rollout(0), ZERO, [])
    save = run.calls.begin(0.0, Duty(0, TaskKey(0, "checkpoint", Once("save")), SaveWork(RUN, ZERO), (), ()), ZERO, [])
    run.calls.stop_stale(ONE, run.out)
    assert run.out == [Stop(stale)]
    assert list(run.state.calls) == [save]
    run.calls.stop_all(run.out, but_saves=True)
    assert list(run.state.calls) == [save]
    run.calls.stop_all(run.out)
    assert run.out == [Stop(stale), Stop(save)]


def test_leaves_that_were_given_away_are_cut_off_a_running_block() -> None:
    """The engine goes on with those before them."""
    run = ARun()
    unit = TaskKey(0, "learn", Block(0, 4))
    call = run.calls.begin(0.0, Duty(BLOCK, unit, BlockWork(0, "learn", 0, 4, (), (), ()), (), ()), ZERO, [])
    assert run.calls.withdraw({TaskKey(0, "learn", Block(2, 3)), TaskKey(0, "learn", Block(3, 4))}, run.out)
    assert run.out == [Trim(call, 2)]
    assert str(run.state.calls[call].unit) == "0/learn/b0-2"
    assert not run.calls.withdraw({TaskKey(0, "learn", Block(9, 10))}, run.out)
