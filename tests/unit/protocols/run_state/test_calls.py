"""Calls: free slots get what is due first and has its inputs here, and what is given up is stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.events import Fetch, Start, Stop, Trim
from dflow_protocols.names import Block, Once, Partition, Slice, TaskKey
from dflow_protocols.run_state.calls import QUEUED_S, FreeSlots
from dflow_protocols.steps.duty import BLOCK, CHAIN, EVALUATE, SLICE, Duty, in_order
from dflow_protocols.work import BlockWork, ChainWork, Done, Made, SaveWork, SliceWork, Work, at_once
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
    assert run.calls.has_waiting
    queued = list(run.state.calls)[1]
    run.calls.began(queued)
    assert not run.state.calls[queued].waits
    assert not run.calls.has_waiting


def test_a_start_tells_of_which_version_its_rollouts_are() -> None:
    """People see by it how far sampling is ahead; what samples nothing is of no version."""
    run = ARun()
    loose = replace(rollout(1), work=ChainWork(0, ("roll",), 1, (), version=7))
    scored = replace(rollout(2), work=ChainWork(0, ("score",), 2, ()))
    run.calls.start(0.0, ALL, [rollout(0), loose, scored], FreeSlots(3), run.out)
    assert [action.samples_from for action in run.out if isinstance(action, Start)] == [0, 7, None]


def test_of_short_partitions_as_many_wait_as_are_done_in_a_moment() -> None:
    """A turn then begins several, and hears of several that ended; idle members may still take what waits."""
    run = ARun()
    run.calls.took(0.0, TaskKey(0, "roll", Partition(9)), Done((Made("roll", (), (), (), QUEUED_S / 5),)))
    assert run.calls.start(0.0, ALL, [rollout(number) for number in range(9)], FreeSlots(1), run.out)
    assert [call.waits for call in run.state.calls.values()] == [False, *[True] * 5]


def test_inputs_that_are_not_here_are_brought_before_the_work_begins() -> None:
    """An engine reads mapped shards; it never waits for a network."""
    run = ARun()
    run.state.holdings.credit(who(2), [shard("input").id])
    assert not run.calls.start(0.0, ALL, [rollout(0, "input")], FreeSlots(1), run.out)
    assert [action.ref for action in run.out if isinstance(action, Fetch)] == [shard("input")]


def test_a_slice_whose_inputs_flow_is_in_hand_and_one_whose_inputs_stall_is_not() -> None:
    """Idle members leave it to who brings its blocks over a slow link, as long as they come."""
    run = ARun()
    run.state.holdings.credit(who(2), [shard("block").id])
    unit = TaskKey(0, "learn", Slice(0, 1))
    duty = Duty(SLICE, unit, SliceWork(0, "learn", 0, 1, 1, (), 1), ((shard("block"), None),), (ZERO.id,))

    def in_hand(now: float) -> tuple[TaskKey, ...]:
        return run.state.taken_on(run.view(now))

    run.calls.start(0.0, ALL, [duty], FreeSlots(1), run.out)
    assert in_hand(ALL.suspicion_s) == (unit,)
    assert in_hand(1.1 * ALL.suspicion_s) == ()
    run.state.holdings.advanced(ALL.suspicion_s, shard("block").id)
    assert in_hand(1.1 * ALL.suspicion_s) == (unit,)
    run.calls.start(ALL.suspicion_s, ALL, [], FreeSlots(1), run.out)
    assert in_hand(ALL.suspicion_s) == ()


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


def shared(partition: int, at_once: int = 3) -> Duty:
    """A partition that shares its slot with others."""
    duty = rollout(partition)
    return replace(duty, work=ChainWork(0, ("roll",), partition, (), at_once=at_once))


def works(*duties: Duty) -> list[Work]:
    return [duty.work for duty in duties]


PARTITION, LEAF = shared(0).work, BlockWork(0, "learn", 0, 4, (), (), ())


@pytest.mark.parametrize(
    ("slots", "own", "others", "partitions", "leaves"),
    [
        (1, works(), [], 3, 1),
        (1, works(shared(0)), [], 2, 0),
        (1, works(shared(0), shared(1), shared(2)), [], 0, 0),
        (1, works(rollout(0)), [], 0, 0),
        (1, [LEAF], [], 0, 0),
        (2, works(shared(0)), [], 5, 1),  # two more beside it, and three in the other slot
        (2, works(shared(0), shared(1)), [], 4, 0),  # they were spread
        (2, [LEAF, PARTITION], [], 2, 0),
        (2, works(), [works(shared(0))], 3, 1),
        (2, works(shared(0)), [works(shared(1))], 2, 0),
        (2, works(), [works(shared(0), shared(1))], 0, 0),
    ],
)
def test_partitions_that_share_slots_are_spread_over_them(
    slots: int, own: list[Work], others: list[list[Work]], partitions: int, leaves: int
) -> None:
    """A slot has one kind of work at a time: a leaf needs an empty one, a partition finds a seat with its run's."""
    free = FreeSlots.beside(slots, 0, own, others)
    assert (max(0, free.of(PARTITION)), free.of(LEAF)) == (partitions, leaves)


def test_a_slot_is_filled_with_partitions_and_one_more_waits() -> None:
    """As many as one batch takes, and what shall follow at once."""
    run = ARun()
    assert run.calls.start(0.0, ALL, [shared(number) for number in range(8)], FreeSlots(1), run.out)
    assert [call.waits for call in run.state.calls.values()] == [False, False, False, True]


def test_where_runs_share_the_slots_none_adds_to_its_partitions_there() -> None:
    """A stream of them would hold the slot until the step has no more, and another run's block waits so long."""
    running = works(shared(0))
    apart = FreeSlots.beside(1, 0, running, seats=False)
    assert apart.of(PARTITION) == 0
    assert FreeSlots.beside(1, 0, [], seats=False).of(PARTITION) == 3, "an empty slot takes a whole batch"


def test_what_waits_for_a_whole_slot_is_not_kept_waiting_by_more_partitions() -> None:
    """Others wait for a leaf; an evaluation, partition after partition, would hold it up to its end."""
    run = ARun()
    leaf = Duty(BLOCK, TaskKey(0, "learn", Block(0, 4)), LEAF, (), (ZERO.id,))
    evaluations = [replace(shared(number), rank=EVALUATE) for number in range(2)]
    assert not run.calls.start(0.0, ALL, in_order([*evaluations, leaf]), FreeSlots(0, seats=2), run.out)
    assert run.calls.start(0.0, ALL, evaluations, FreeSlots(0, seats=2), run.out)


def test_a_partition_that_failed_is_tried_alone() -> None:
    """It would end others with itself, and they look as guilty."""
    run = ARun()
    run.state.failures.record(shared(1).unit, who(1), "engine", "died")
    run.calls.start(0.0, ALL, [shared(1), shared(2)], FreeSlots(2), run.out)
    taken = {str(action.task): (action.fresh, at_once(action.work)) for action in run.out if isinstance(action, Start)}
    assert taken == {"0/roll/p1": (True, 1), "0/roll/p2": (False, 3)}


def test_an_update_begins_while_rollouts_have_every_device() -> None:
    """Both are due at once where several runs share a mesh, or an evaluation lasts."""
    run = ARun()
    update = Duty(SLICE, TaskKey(0, "learn", Slice(0, 1)), SliceWork(0, "learn", 0, 1, 4, (), 1), (), (ZERO.id,))
    assert run.calls.start(0.0, ALL, in_order([rollout(0), rollout(1), update]), FreeSlots(0, 1), run.out)
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
