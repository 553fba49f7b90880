"""Checkpoints: who writes which, what the others are told, and when an old one may go."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.controllers.checkpoints import ARRIVAL_WAIT, COMMIT_WAIT, MOST_HEADS, Checkpoints
from dflow_protocols.events import Discard, Report, Start
from dflow_protocols.run_state import status as runs
from dflow_protocols.simulator.toy import several_updates, warm_then_two
from dflow_protocols.wire.steps import CheckpointPut, Header
from dflow_protocols.work import SaveWork
from tests.unit.protocols.books import RUN, ZERO, heartbeat, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

CHAIN = [ZERO]
for number in range(1, 5):
    CHAIN.append(version(f"v{number}", CHAIN[-1], samples=4))
_, ONE, TWO, THREE, FOUR = CHAIN


def kept(*mine: Header, every: int = 1, own: Header | None = ONE) -> tuple[ARun, Checkpoints]:
    run = ARun(warm_then_two(every=every), own=own)
    return run, Checkpoints(run.state, run.calls, run.outbox, mine)


def test_what_lies_on_the_disk_is_told_best_first() -> None:
    """Who hears only the first of many still hears the best."""
    run, checkpoints = kept(ONE, TWO)
    checkpoints.tell([who(3), who(2), who(1)], run.out)
    told = CheckpointPut(RUN, 0, (TWO.head, ONE.head))
    assert run.told(CheckpointPut) == [(who(2), told), (who(3), told)]


def test_a_committed_version_is_owed_by_its_first_two_holders_only() -> None:
    """Two disks are enough, and a save costs the slot."""
    owed = []
    for me_holds in (2, 3):
        run, checkpoints = kept()
        run.state.versions.observe(who(me_holds), heartbeat(ONE))
        run.state.commit(1)
        owed.append(checkpoints.owed(ARRIVAL_WAIT + 0.1, ALL, ONE))
    assert owed == [ONE, ONE]
    run, checkpoints = kept(ONE)
    run.state.commit(1)
    assert checkpoints.owed(0.0, ALL, ONE) is None


def test_who_is_early_leaves_a_version_for_a_while_to_those_who_come_before_it() -> None:
    """Each of five would be among the first two of the few that it knows to be there, and all would write it."""
    run, checkpoints = kept()
    run.state.versions.observe(who(2), heartbeat(ONE))
    run.state.commit(1)
    assert checkpoints.owed(0.0, ALL, ONE) is None  # the third node comes before this one
    assert checkpoints.owed(0.0, mesh(1, 2), ONE) == ONE


def test_what_lies_on_two_disks_is_written_by_no_third() -> None:
    """Who gets there later, and would come before those that wrote it, costs a slot and a disk for nothing."""
    run, checkpoints = kept()
    for number in (2, 3):
        run.state.versions.observe(who(number), heartbeat(ONE))
        checkpoints.learn(who(number), (ONE.head,))
    run.state.commit(1)
    assert checkpoints.owed(9 * COMMIT_WAIT, ALL, ONE) is None
    assert checkpoints.owed(9 * COMMIT_WAIT, mesh(1, 2), ONE) == ONE  # a disk is gone with its node


def test_the_second_disk_is_of_the_first_that_has_not_written_it() -> None:
    """Of three holders the one that wrote it need not be among the first two, who would both write it as well."""
    run, checkpoints = kept(ONE, own=TWO)
    for number in (2, 3):
        run.state.versions.observe(who(number), heartbeat(TWO))
    run.state.commit(2)
    assert checkpoints.owed(ARRIVAL_WAIT + 0.1, ALL, TWO) == TWO  # the order is 3, 1, 2
    checkpoints.learn(who(2), (TWO.head,))
    assert checkpoints.owed(ARRIVAL_WAIT + 0.1, ALL, TWO) is None


def test_where_steps_are_fast_others_step_in_for_a_disk_that_takes_nothing() -> None:
    """No version is held for as long as its first two are waited for: each that falls to it would lie on one disk."""
    run = ARun(replace(warm_then_two(every=1), steps=20), own=None)
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    chain, written = [ZERO], list[int]()
    for number in range(1, 20):
        chain.append(version(f"w{number}", chain[-1], samples=4))
        now, newest = 2.0 * number * ARRIVAL_WAIT * ALL.suspicion_s, chain[-1]
        run.hold(newest)
        run.state.versions.keep_only([header.id for header in chain[-2:]])
        run.state.advanced(now)
        for other in (2, 3):
            run.state.versions.observe(who(other), heartbeat(newest))
        run.state.commit(number)
        checkpoints.learn(who(2), (newest.head, chain[-2].head))  # the third's disk is full
        while (owed := checkpoints.owed(now + 1.5 * ARRIVAL_WAIT * ALL.suspicion_s, ALL, newest)) is not None:
            checkpoints.saved(ALL, owed, "folder", run.out)
            written.append(owed.step)
    left = sorted(set(range(1, 20)) - set(written))
    assert left
    assert 2.0 * ARRIVAL_WAIT * (left[-1] - left[0]) <= COMMIT_WAIT


def test_a_drained_disk_is_none_of_two() -> None:
    """Its host is about to be switched off: then the run's end would lie on no disk that is there."""
    run, checkpoints = kept()
    for number in (2, 3):
        run.state.versions.observe(who(number), heartbeat(ONE))
        checkpoints.learn(who(number), (ONE.head,))
    run.state.commit(1)
    drained = replace(ALL, drained=frozenset((who(2), who(3))))
    assert checkpoints.owed(9.0, ALL, ONE) is None
    assert checkpoints.owed(9.0, drained, ONE) == ONE
    assert checkpoints.holders(ONE.id, replace(ALL, drained=ALL.living)) == {who(2), who(3)}


def test_none_is_replaced_by_what_lies_on_drained_disks() -> None:
    """What is newer there goes with their hosts."""
    run, checkpoints = kept(ONE, TWO, THREE)
    checkpoints.learn(who(2), (TWO.head, THREE.head))
    checkpoints.retire(replace(ALL, drained=frozenset((who(2),))), run.out)
    assert run.out == []


def test_what_newer_ones_replaced_is_not_written_again() -> None:
    """It is still held, for who is late, and would go from the disk as soon as it is there."""
    run, checkpoints = kept(TWO, THREE)
    for header in (TWO, THREE):
        run.hold(header)
    run.state.commit(3)
    assert checkpoints.owed(9.0, mesh(1, 2), THREE) == ONE
    checkpoints.learn(who(2), (TWO.head, THREE.head))
    assert checkpoints.owed(9.0, mesh(1, 2), THREE) is None


def test_who_copied_a_later_version_writes_none_before_it() -> None:
    """It never had that, and the others would leave a disk to it."""
    run = ARun(several_updates(), own=None)
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    chain = [*CHAIN, version("v5", FOUR, samples=4)]
    for number in range(6, 8):
        chain.append(version(f"v{number}", chain[-1], samples=4))
    for header in chain:
        run.hold(header)
    begun, newest = chain[5], chain[7]
    run.state.versions.observe(who(2), heartbeat(newest))
    run.state.versions.observe(who(3), replace(heartbeat(newest), entered=6))
    assert checkpoints.writers(ALL, begun) == {who(1), who(2)}
    run.state.versions.observe(who(3), replace(heartbeat(newest), entered=5))
    assert checkpoints.writers(ALL, begun) == {who(1), who(2), who(3)}


def test_nothing_is_owed_before_it_is_committed_unless_nobody_else_comes() -> None:
    """The disk is the second copy of a version that only this node has."""
    _, checkpoints = kept()
    assert checkpoints.owed(0.0, ALL, ONE) is None
    assert checkpoints.owed(COMMIT_WAIT + 0.1, mesh(1), ONE) == ONE


def test_a_save_is_told_and_replaces_another_branch_of_its_step() -> None:
    """One folder a step, and what is said of it must be what is in it."""
    run, checkpoints = kept(version("branch", ZERO))
    checkpoints.saved(ALL, ONE, "step-000001", run.out)
    assert list(checkpoints.mine) == [ONE.id]
    assert {to for to, _ in run.told(CheckpointPut)} == {who(2), who(3)}
    fields = {"run": RUN, "step": 1, "version": ONE.id, "folder": "step-000001"}
    assert Report("checkpoint.saved", fields) in run.out


def test_people_are_told_the_step_that_their_pipeline_counts() -> None:
    """Where a step makes several updates versions have other numbers, which their folders are called by."""
    run = ARun(several_updates())
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    first = CHAIN[-1]
    for number in range(5, 7):  # five updates in the first step
        first = version(f"v{number}", first, samples=4)
        checkpoints.saved(ALL, first, f"step-{number:06d}", run.out)
    checkpoints.refuse(ALL, first, "torn", run.out)
    told = [action.fields["step"] for action in run.out if isinstance(action, Report)]
    assert told == [1, 1, 1]
    assert checkpoints.story == "step 1: torn"


def test_old_ones_go_once_enough_newer_ones_lie_on_enough_disks() -> None:
    """`keep` of them, each on two disks, are what a run comes back from."""
    run, checkpoints = kept(ONE, TWO, THREE)
    checkpoints.retire(ALL, run.out)
    assert run.out == []
    checkpoints.learn(who(2), (TWO.head, THREE.head))
    checkpoints.retire(ALL, run.out)
    assert run.out == [Discard(RUN, 1, ONE.id)]


def test_a_finished_run_keeps_its_newest_whatever_the_others_have() -> None:
    """Its end says that the last version lies on enough disks."""
    run, checkpoints = kept(ONE, TWO, THREE, FOUR)
    run.state.end(runs.FINISHED, {"version": FOUR.id})
    checkpoints.retire_finished(run.out)
    assert sorted(header.step for header in checkpoints.mine.values()) == [3, 4]


def test_a_member_that_says_too_much_is_believed_in_part() -> None:
    """Nobody fills another's memory by talking."""
    _, checkpoints = kept()
    checkpoints.learn(who(2), (ONE.head,) * (2 * MOST_HEADS))
    assert len(checkpoints.others[who(2)]) == MOST_HEADS
    checkpoints.forget(who(2))
    assert checkpoints.best_elsewhere(ALL.living) is None


def test_the_newest_version_is_saved_once_when_there_is_no_next_step_here() -> None:
    """Whether the save succeeds or not, a node that leaves does not try for ever."""
    run, checkpoints = kept()
    assert checkpoints.part(0.0, mesh(1), run.out)
    assert checkpoints.part(0.1, mesh(1), run.out)
    (start,) = (action for action in run.out if isinstance(action, Start))
    assert start.work == SaveWork(RUN, ONE)
    run.calls.take(start.call)
    assert not checkpoints.part(0.2, mesh(1), run.out)


def test_what_gave_way_stays_in_memory_until_it_lies_on_a_disk() -> None:
    """Where a store has no room its disk may be full, too; and nobody asked for the run to lose its steps."""
    run, checkpoints = kept()
    run.state.end(runs.FAILED, {runs.YIELDS: "another run"})
    assert checkpoints.part(0.0, mesh(1, 2), run.out)
    (start,) = (action for action in run.out if isinstance(action, Start))
    run.calls.take(start.call)
    run.state.retry(start.task, 4.0)
    assert checkpoints.part(1.0, mesh(1, 2), run.out)
    assert len([action for action in run.out if isinstance(action, Start)]) == 1
    assert checkpoints.part(4.0, mesh(1, 2), run.out)
    *_, again = (action for action in run.out if isinstance(action, Start))
    run.calls.take(again.call)
    checkpoints.learn(who(2), (ONE.head,))
    assert not checkpoints.part(5.0, mesh(1, 2), run.out)


def test_a_node_that_leaves_does_not_wait_for_a_disk_though_its_run_gave_way() -> None:
    """Who asked it to go would wait for ever where that disk is full."""
    run, checkpoints = kept()
    run.state.end(runs.FAILED, {runs.YIELDS: "another run"})
    run.state.leave(frozenset())
    assert checkpoints.part(0.0, mesh(1), run.out)
    (start,) = (action for action in run.out if isinstance(action, Start))
    run.calls.take(start.call)
    assert not checkpoints.part(9.0, mesh(1), run.out)


def test_a_checkpoint_that_cannot_be_brought_back_is_passed_over_and_its_story_told() -> None:
    """It stays on the disk for people to see; nobody waits for it any more."""
    run, checkpoints = kept(ONE)
    checkpoints.refuse(ALL, ONE, "torn", run.out)
    assert checkpoints.best is None
    assert checkpoints.is_lost
    assert checkpoints.story == "step 1: torn"
    assert run.told(CheckpointPut) == [(who(node), CheckpointPut(RUN, 0, ())) for node in (2, 3)]


def test_what_a_member_had_that_is_gone_is_remembered_until_it_speaks_again() -> None:
    """Who asks for a checkpoint that nobody living has is told whose disk it is on."""
    _, checkpoints = kept()
    checkpoints.learn(who(2), (TWO.head, ONE.head))
    checkpoints.forget(who(2))
    assert checkpoints.away == {who(2): (TWO.head, ONE.head)}
    assert checkpoints.holders(TWO.id, ALL) == set()
    checkpoints.learn(who(2), (ONE.head,))
    assert checkpoints.away == {}
