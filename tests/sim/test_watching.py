"""Each checker bites: a mesh that does what it must not is noticed, by the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from dflow_protocols.claiming.ability import WITHDRAW_AFTER
from dflow_protocols.events import Broke, Finished, Persist, Report, Send, Start
from dflow_protocols.names import NodeId, Partition, RunId, ShardId, ShardRef, TaskKey
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status
from dflow_protocols.simulator.drawn.choice import Choice
from dflow_protocols.simulator.drawn.survey import hunt
from dflow_protocols.simulator.drawn.swarm import live_through
from dflow_protocols.simulator.drawn.watch import CHECKERS, INSPECT_S, Watch
from dflow_protocols.simulator.faults import Crash, Cut, Join, Pause, Split, Stop, When
from dflow_protocols.simulator.faults.target import crash
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES, BlockSum
from dflow_protocols.simulator.model.work import NOISY
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import Mutation, gives, living
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import TOY_LEAVES, several_updates, two_steps, warm_then_two, with_sizes
from dflow_protocols.simulator.watching.books import Books
from dflow_protocols.simulator.watching.checker import Checker, Steady
from dflow_protocols.simulator.watching.heads import Heads
from dflow_protocols.simulator.watching.limits import Limits
from dflow_protocols.simulator.watching.runs.cycles import Cycles
from dflow_protocols.simulator.watching.runs.ending import Ending
from dflow_protocols.simulator.watching.runs.flow import Flow
from dflow_protocols.simulator.watching.runs.thrift import Thrift
from dflow_protocols.simulator.watching.waking import Waking
from dflow_protocols.simulator.watching.working import Working
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.steps import Record, RecordPut, Roster, RunAck, RunPut
from dflow_protocols.work import ChainWork, Done, Failed
from tests.support.simulated import ENDS_S, FORMED_S, mesh

RUN = RunId("a" * 32)
CALM = Choice(nodes=3, faults=(), engine="pure")


def _all_by_the_first(original: Any) -> Any:
    """Whatever there is is dealt to one member."""
    return lambda units, roster, living, *slots, **runs: dict.fromkeys(units, min(living))


def _everything_here(original: Any) -> Any:
    """Every node does all."""
    return lambda self, view, rank, unit, home, able: rank


def _leaves_in_another_order(original: Any) -> Any:
    """A gradient of other leaves: nothing is mixed, and it is another one."""
    return lambda groups, leaves: original(groups, 1)


def _all_is_stale(original: Any) -> Any:
    """A node stops what it works on whenever it looks."""
    return lambda self, header, out: self.stop_all(out)


BROKEN = {
    "pure": [Mutation("", "7", "steps.reduction:cut_leaves", _leaves_in_another_order)],
    "slots_filled": [
        Mutation("", "11", "claiming.deal:homes", _all_by_the_first),
        Mutation("", "11b", "controllers.stealing:Stealing.seek", gives(None)),
    ],
    "never_still": [Mutation("", "11", "run_state.calls:Calls.start", gives(False))],
    "step_in_time": [Mutation("", "2", "steps.view:StepView.counts", gives(False))],
    "done_once": [Mutation("", "11", "steps.duty:Due.rank", _everything_here)],
    "stops_for_reason": [Mutation("", "11", "run_state.calls:Calls.stop_stale", _all_is_stale)],
}
"""Promise -> rules that are broken together so that this one shows it first, though nothing strikes."""


def first_violation(choice: Choice, seeds: int) -> Violation | None:
    for seed in range(seeds):
        try:
            live_through(seed, choice)
        except Violation as violation:
            return violation
    return None


@pytest.mark.parametrize("invariant", BROKEN)
def test_what_goes_wrong_though_nothing_breaks_is_noticed(invariant: str) -> None:
    """Where nothing strikes a mesh has no excuse."""
    with ExitStack() as stack:
        for mutation in BROKEN[invariant]:
            stack.enter_context(living(mutation))
        broken = first_violation(CALM, 8)
    assert broken is not None
    assert broken.invariant == invariant


@pytest.mark.parametrize(
    ("mutation", "choice", "invariant"),
    [
        ("slices_are_freed_at_commit", Choice(nodes=3, faults=()), "late_served"),
        ("who_slept_acts_at_once", Choice(nodes=3, faults=("pause",)), "slept_listens"),
        ("the_dead_are_in_the_succession", Choice(nodes=4, faults=("crash",)), "seal_settles"),
        ("leaving_hands_nothing_over", Choice(nodes=3, faults=("leave",)), "leave_hands_over"),
        ("leaving_gives_nothing_back", Choice(nodes=4, faults=("leave",)), "leave_gives_back"),
        ("a_drained_node_lets_nothing_go", Choice(nodes=3, faults=("drain",)), "drained_lets_go"),
        ("a_task_stays_where_it_failed", Choice(nodes=3, faults=("break_engine",)), "failed_moves_on"),
        ("blocks_of_slots_are_told_at_once", Choice(nodes=3, faults=()), "summed_first"),
        ("the_committed_version_goes", Choice(nodes=3, faults=()), "committed_kept"),
        ("who_is_late_copies_nothing", Choice(nodes=3, faults=("split",), engine="wild"), "one_branch"),
        ("a_task_is_tried_for_ever", Choice(nodes=3, faults=("poison",), engine="noisy"), "task_gives_up"),
        ("two_of_one_key_both_speak", Choice(nodes=3, faults=("clone",)), "one_speaks"),
        ("committed_as_soon_as_made", Choice(nodes=3, faults=("pause",)), "commit_true"),
        ("who_cannot_be_dialled_counts", Choice(nodes=3, faults=("close_lane",)), "unreached_rests"),
    ],
)
def test_a_rule_whose_breach_takes_a_fault_is_missed(mutation: str, choice: Choice, invariant: str) -> None:
    """A few worlds of the fault that it is for are enough."""
    found = hunt(MUTATIONS[mutation], range(40), choice)
    assert [violation.invariant for _, violation in found.violations] == [invariant]


def watched(nodes: int = 2, checkers: Iterable[type[Checker]] = CHECKERS) -> tuple[World, Watch]:
    world = World(spawn, nodes=nodes)
    return world, Watch(world, checkers)


def violated(world: World, seconds: float) -> str:
    """The invariant that a world breaks within so long."""
    with pytest.raises(Violation) as broken:
        world.run(seconds)
    return broken.value.invariant


def test_two_things_of_one_name_are_noticed() -> None:
    """Whoever has one of them would take it for the other."""
    world, watch = watched()
    records = [Record(TaskKey(0, "roll", Partition(0)), ("v",), (), (), (("samples", n),)) for n in (1.0, 2.0)]

    def tell(record: Record) -> None:
        watch.saw(world.hosts[0], Send(world.hosts[1].id, Frame(None, (RecordPut(RUN, (record,)),))))

    for record in records:
        tell(record)
    with living(MUTATIONS["records_named_without_outputs"]):
        _, watch = watched()
        tell(records[0])
        with pytest.raises(Violation, match="two things called"):
            tell(records[1])


def submitted(nodes: int, pipeline: Pipeline, checker: type[Checker]) -> World:
    """A young mesh with a run, at which one checker alone looks."""
    world = World(spawn, nodes=nodes, noise=NOISY)
    Watch(world, (checker,))
    world.run(1.0)
    world.submit(0, pipeline)
    return world


def test_who_leaves_its_version_for_a_worse_one_is_noticed() -> None:
    """What only it had would be gone with that."""
    world = submitted(3, two_steps(), Heads)
    world.at(world.now + 1.0, Split((0,), 3.0))
    with living(MUTATIONS["the_fewest_samples_win"]), pytest.raises(Violation) as broken:
        world.run(20.0)
    assert broken.value.invariant == "never_back"


def test_who_hears_of_a_resume_alone_may_give_up_what_it_began_before() -> None:
    """Its version is the one that it had: what it did was for the attempt that was stopped meanwhile."""
    world = submitted(3, with_sizes(two_steps(), 2, 12, 8), Working)
    world.at(world.now + 0.1, Split((2,), 0.3, inbound=True))
    world.at(world.now + 0.15, Stop(resumed_by=0, resumed_after_s=0.1, node=1))
    world.run(6.0)


def test_a_seal_whose_put_was_lost_is_waited_for_until_it_is_put_again() -> None:
    """Who moved on as it was lost says it again not at its next look but at the one after."""
    world, run = mesh(3, pipeline=several_updates())
    Watch(world, (Flow,))
    world.plan(When("start apply_work", 3, node=None), Cut(1, 0, 0.15))
    over = ended(world, run)
    world.run(ENDS_S, over)
    assert over()


def test_books_that_grow_with_each_step_are_noticed() -> None:
    """A run may have a million of them."""
    world = submitted(2, with_sizes(two_steps(), 8, 2, 2), Limits)
    stays = Mutation("", "8", "run_state.run_state:RunState.free_before", gives(None))
    with living(stays), pytest.raises(Violation) as broken:
        world.run(40.0)
    assert broken.value.invariant == "within_bounds"


def test_a_store_that_holds_more_than_it_may_is_noticed() -> None:
    """The machine would swap, or kill the daemon."""
    world, _ = watched()
    world.hosts[0].store.limit(1)
    world.hosts[0].store.put(RUN, ShardRef(ShardId("b" * 64), 2))
    with pytest.raises(Violation) as broken:
        world.run(1.0)
    assert broken.value.invariant == "within_bounds"


def test_who_knew_nobody_when_it_fell_asleep_may_act_when_it_wakes() -> None:
    """What a newcomer said to it meanwhile is all that there is to hear."""
    world = World(spawn, nodes=1)
    Watch(world, (Waking,))
    world.at(1.0, Pause(8.0, 0))
    world.at(3.0, Join(world.add((0,)).index))
    world.run(9.01)
    run = world.submit(0, two_steps())
    assert world.run(ENDS_S, ended(world, run))


def test_a_mesh_is_new_to_itself_when_somebody_comes_however_soon_all_know_that() -> None:
    """What was said to it in the moment before it knew of a run is said again first, and nobody is late until then."""
    world = World(spawn, nodes=2)
    steady = Steady(world)

    def look() -> None:
        steady.inspect()
        world.after(INSPECT_S, look)

    look()
    world.at(5.0, Join(world.add((0, 1)).index))
    world.run(4.9)
    assert steady.seconds > 1.0
    world.run(0.5)
    assert steady.seconds < 0.5
    world.run(2.0)
    assert steady.seconds > 1.0


def _status(state: str, attempt: int = 0) -> Persist:
    roster = Roster(0, 0, (), ())
    put = RunPut(RUN, state, attempt, b"", "", (), NodeId("n"), "0", roster, b"", False)
    return Persist(f"runs/{RUN}", status.dump(put))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_status("finished"), _status("active")),
        (_status("cancelled"), _status("finished")),
        (_status("active", 1), _status("failed", 0)),
    ],
)
def test_a_run_that_comes_back_from_its_end_is_noticed(before: Persist, after: Persist) -> None:
    """What people were told is over must stay so."""
    world, watch = watched()
    watch.saw(world.hosts[0], before)
    watch.saw(world.hosts[0], before)
    with pytest.raises(Violation) as broken:
        watch.saw(world.hosts[0], after)
    assert broken.value.invariant == "end_stays"


def test_a_lost_branch_that_is_told_twice_is_noticed() -> None:
    """Its cost would be counted twice."""
    world, watch = watched()
    report = Report("run.branch_lost", {"run": RUN, "version": "v"}, "warning")
    watch.saw(world.hosts[0], report)
    with pytest.raises(Violation) as broken:
        watch.saw(world.hosts[0], report)
    assert broken.value.invariant == "branch_told_once"


def test_a_broken_host_that_goes_on_is_noticed() -> None:
    """It would eat a step's partitions one after another."""
    world, watch = watched()

    def fail(call: int) -> None:
        task = TaskKey(0, "roll", Partition(call))
        watch.saw(world.hosts[0], Start(call, RUN, task, ChainWork(0, ("roll",), call, ())))
        watch.heard(world.hosts[0], Broke(call, Failed("engine", "it computes nothing", "roll")))

    for call in range(WITHDRAW_AFTER + 1):
        fail(call)
    with pytest.raises(Violation) as broken:
        fail(WITHDRAW_AFTER + 1)
    assert broken.value.invariant == "broken_rests"


def test_who_vouches_for_what_its_disk_did_not_take_is_noticed() -> None:
    """Its client was told that the run is safe."""
    world, watch = watched()
    host, ack = world.hosts[0], Send(world.hosts[1].id, Frame(None, (RunAck(RUN, "finished", 0),)))
    host.disk.write(f"runs/{RUN}", _status("finished").value)
    watch.saw(host, ack)
    host.disk.write(f"runs/{RUN}", _status("active").value)
    with pytest.raises(Violation) as broken:
        watch.saw(host, ack)
    assert broken.value.invariant == "disk_vouched"


def test_books_that_have_what_the_store_gave_up_are_noticed() -> None:
    """Others would wait for what nobody has."""
    world, _ = watched()
    run = world.submit(0, two_steps())
    world.run(0.4)
    node(world.hosts[0]).runs[run].state.holdings.keep(ShardRef(ShardId("e" * 64), 1))
    assert violated(world, 1.0) == "books_true"


def test_a_loan_that_never_ends_though_nobody_claims_it_is_noticed() -> None:
    """The grant was lost, or the thief died: the work is left to somebody who does not know of it."""
    world, _ = watched(checkers=[Books])
    world.run(FORMED_S)
    run = world.submit(0, two_steps(partitions=12))
    for host in world.hosts:
        host.health.impair("slow")
    world.run(0.5)
    lender, thief = world.hosts
    with living(MUTATIONS["a_loan_never_lapses"]):
        node(lender).runs[run].state.loans.lend([TaskKey(0, "roll", Partition(11))], thief.id, 0.0)
        assert violated(world, 5.0) == "loan_lapses"


def test_who_goes_on_in_the_smaller_part_of_a_split_is_noticed() -> None:
    """Two branches would come of it, though the run asked for one."""
    world, _ = watched(nodes=3)
    world.run(FORMED_S)
    world.submit(0, replace(two_steps(), on_split="pause_minority"))
    for dead in (1, 2):
        world.at(world.now + 0.4, Crash(dead))
    with living(MUTATIONS["nobody_pauses_in_a_split"]):
        assert violated(world, 30.0) == "minority_waits"


def test_a_run_that_takes_too_long_where_nothing_strikes_is_noticed() -> None:
    """Each wait by itself would pass for one that has its reason."""
    world, _ = watched(nodes=2, checkers=[Ending])
    world.run(FORMED_S)
    world.submit(0, two_steps())
    with living(Mutation("", "4", "steps.sealing:has_copies", gives(False))):
        assert violated(world, 30.0) == "ends_in_time"


def test_nodes_that_each_take_a_unit_for_the_others_are_noticed() -> None:
    """Either would do it, and neither ever does."""
    world, _ = watched(checkers=[Cycles])
    world.run(FORMED_S)
    run = world.submit(0, two_steps(partitions=12))
    world.run(0.5)
    unit = TaskKey(0, "roll", Partition(11))
    states = [node(host).runs[run].state for host in world.hosts]
    with living(MUTATIONS["a_claim_never_ends"]), living(Mutation("", "11a", "steps.step:Step._unclaim", gives(None))):
        for state, other in zip(states, reversed(world.hosts), strict=True):
            assert unit not in {call.unit for call in state.calls.values()}
            state.step(0).claims.setdefault(unit, {})[other.id] = inf
            state.step(0).claims_changed.note(unit)
        assert violated(world, 60.0) == "no_cycle"


def test_bytes_that_nobody_needs_are_noticed() -> None:
    """Whoever sums a slice reads its chunks of the others' blocks, and not the blocks."""
    world, watch = watched(nodes=2)
    world.run(FORMED_S)
    run = world.submit(0, two_steps())
    finish(world, run, ENDS_S)
    watch.end()
    process = world.hosts[0].process
    assert process is not None
    block = next(shard for shard in world.ledger.entries if isinstance(world.ledger[shard], BlockSum))
    process.bulk.fetched_bytes[block] += (TOY_LEAVES + 2) * PARAMETER_BYTES
    with pytest.raises(Violation) as broken:
        watch.end()
    assert broken.value.invariant == "bytes_derived"


def test_copies_that_nobody_needs_are_noticed() -> None:
    """A replica that does not wait for who is to hold a second copy makes a third one."""
    world, watch = watched(nodes=5, checkers=[Thrift])
    world.run(FORMED_S)
    with living(MUTATIONS["all_replicas_copy_at_once"]):
        finish(world, world.submit(0, two_steps(partitions=12)), ENDS_S)
    with pytest.raises(Violation) as broken:
        watch.end()
    assert broken.value.invariant == "bytes_derived"


def test_work_that_is_done_again_though_nobody_who_died_held_it_is_noticed() -> None:
    """A death costs what was lost with it, and no more."""
    world, watch = watched(nodes=3, checkers=[Thrift])
    run = world.submit(0, two_steps())
    world.kill(world.hosts[2])
    for host in world.hosts[:2]:
        for call in range(12):
            task = TaskKey(0, "roll", Partition(call))
            watch.saw(host, Start(call, run, task, ChainWork(0, ("roll",), call, ())))
            watch.heard(host, Finished(call, Done(())))
    with pytest.raises(Violation) as broken:
        watch.end()
    assert broken.value.invariant == "redone_lost"


def test_who_does_not_wait_for_a_better_checkpoint_is_noticed() -> None:
    """All died at once: steps that lie on a disk, which comes back a little later, would be made again."""
    world, _ = watched(nodes=2)
    world.run(FORMED_S)
    world.submit(0, warm_then_two(every=1))
    best, worse = world.hosts
    world.run(ENDS_S, lambda: len(best.disk.saved) >= 2 and world.saved.keys() >= best.disk.saved.keys())
    for host in world.hosts:
        crash(world, host, 0.1 if host is worse else 2.0)
    worse.disk.saved.clear()
    with living(MUTATIONS["nobody_is_waited_for_after_a_restart"]):
        assert violated(world, 5.0) == "best_comes_back"


@pytest.mark.parametrize("seed", [5772, 6337])
def test_a_partition_of_several_calls_is_not_done_several_times(seed: int) -> None:
    """Rollouts in segments, where nothing breaks at all, or a node leaves when all is done."""
    live_through(seed)


@pytest.mark.parametrize("seed", [60004, 60044])
def test_who_is_held_up_by_what_a_fault_left_is_not_blamed(seed: int) -> None:
    """An acknowledgement was lost before all was well; whoever is idle does not offer what the partitions require."""
    live_through(seed)


def test_who_slept_and_heard_from_nobody_acts_when_it_has_waited_by_its_own_clock() -> None:
    """A turn lies between its waking and what the watch sees of it."""
    live_through(30083)


def test_who_slept_gives_nothing_away_before_it_heard_what_happened() -> None:
    """A request lies in its inbox when it wakes; in this world it granted what others had done long since."""
    live_through(12, Choice(nodes=3, faults=("lose_devices", "pause")))


def test_a_block_is_told_in_halves_once_a_home_can_train_that_left_it_to_another() -> None:
    """It still leaves another stage to others, whose code it does not run; its leaf is dealt to it all the same."""
    live_through(37, Choice(nodes=4, faults=("leave",)))
