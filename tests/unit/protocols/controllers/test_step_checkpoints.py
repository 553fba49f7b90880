"""Checkpoints of one run at one node: which go, which are loaded, and for whom a node waits before it begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from dflow_protocols.events import Action, Discard, Send, Start
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs.run import Run
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import CheckpointPut, Header, RunPut
from dflow_protocols.work import Done, Failed, InitWork, LoadWork, Made
from tests.unit.protocols.books import RUN, who
from tests.unit.protocols.books import version as made_version

ME, OTHER, THIRD = who(1), who(2), who(3)
SAVING = Pipeline.from_dict(warm_then_two(every=1).to_dict())
S = 1.0  # a suspicion time


def chain(steps: int) -> list[Header]:
    """Versions 0 to `steps` of one chain."""
    made = [made_version("v0")]
    for step in range(1, steps + 1):
        made.append(made_version(f"v{step}", made[-1], samples=4))
    return made


V = chain(4)


def restored(saved: Sequence[Header], pipeline: Pipeline = SAVING) -> Run:
    """A run as a node finds it on its disk."""
    everyone = [ME, OTHER, THIRD]
    roster = make_roster(0, 0, everyone, everyone)
    status = RunPut(RUN, runs.ACTIVE, 0, pipeline.canonical(), "/base", (), who(9), "0", roster, b"", False)
    return Run(ME, status, pipeline, itertools.count(1), True, 0.0, saved)


def around(*living: int, gathered: bool = True) -> MeshView:
    nodes = frozenset(who(number) for number in living)
    return MeshView(nodes, nodes, S, 1, is_gathered=gathered)


def works(actions: Sequence[Action]) -> list[object]:
    return [action.work for action in actions if isinstance(action, Start)]


def discarded(run: Run, there: MeshView) -> list[int]:
    out: list[Action] = []
    run.checkpoints.retire(there, out)
    return [action.step for action in out if isinstance(action, Discard)]


def test_an_old_checkpoint_goes_only_when_enough_newer_ones_lie_on_two_disks() -> None:
    """`keep` is 2: what one disk has may be gone tomorrow."""
    run = restored(V[1:4])
    assert discarded(run, around(1, 2, 3)) == []
    run.checkpoints.learn(OTHER, (V[3].head,))
    assert discarded(run, around(1, 2, 3)) == []
    run.checkpoints.learn(THIRD, (V[2].head, V[4].head))
    assert discarded(run, around(1, 2)) == []  # the third is dead: its disk helps nobody now
    assert discarded(run, around(1, 2, 3)) == [1]
    assert sorted(header.step for header in run.checkpoints.mine.values()) == [2, 3]


def test_a_lonely_node_keeps_as_many_as_it_is_told_to() -> None:
    """It is all the disks there are."""
    assert discarded(restored(V[1:]), around(1)) == [1, 2]


def test_nothing_is_begun_before_all_of_the_last_life_have_come_and_spoken() -> None:
    """The best checkpoint may be on the machine that boots last."""
    run = restored(V[1:3])
    assert works(run.reconcile(0.0, around(1, 2, gathered=False), FreeSlots(1))) == []
    assert works(run.reconcile(1.0, around(1, 2), FreeSlots(1))) == []
    run.checkpoints.learn(OTHER, (V[1].head,))
    assert works(run.reconcile(1.1, around(1, 2), FreeSlots(1))) == [LoadWork(RUN, V[2])]


def test_who_says_nothing_is_not_waited_for_for_ever() -> None:
    """It may know nothing of the run."""
    run = restored(V[1:3])
    assert works(run.reconcile(1.0, around(1, 2), FreeSlots(1))) == []
    assert works(run.reconcile(1.0 + 3.1 * S, around(1, 2), FreeSlots(1))) == [LoadWork(RUN, V[2])]


def test_a_better_checkpoint_of_another_node_is_left_to_it_for_a_while() -> None:
    """It loads it and claims it; a worse one is taken only if nothing comes of that."""
    run = restored([V[2]])
    run.checkpoints.learn(OTHER, (V[3].head,))
    assert works(run.reconcile(1.0, around(1, 2), FreeSlots(1))) == []
    assert works(run.reconcile(9.0, around(1, 2), FreeSlots(1))) == []
    assert works(run.reconcile(11.1, around(1, 2), FreeSlots(1))) == [LoadWork(RUN, V[2])]


def test_a_member_that_invents_ever_better_checkpoints_does_not_hold_up_a_beginning_for_ever() -> None:
    """Each is waited for as if it were true, so there must not be ever more of them."""
    run = restored([V[2]])
    for now in range(200):
        run.checkpoints.learn(OTHER, (replace(V[3].head, samples=100 + now),))
        if works(run.reconcile(float(now), around(1, 2), FreeSlots(1))) == [LoadWork(RUN, V[2])]:
            return
    raise AssertionError("it waits for the next one")


def test_without_any_checkpoint_the_run_begins_at_version_0() -> None:
    """But not while somebody has one."""
    run = restored([])
    run.checkpoints.learn(OTHER, (V[3].head,))
    assert works(run.reconcile(1.0, around(1, 2), FreeSlots(1))) == []
    run.checkpoints.learn(OTHER, ())  # it was damaged
    assert works(run.reconcile(1.1, around(1, 2), FreeSlots(1))) == [InitWork()]


def test_a_version_that_is_claimed_is_copied_unless_the_own_checkpoint_is_better() -> None:
    """Who was away for a while follows the others; who comes late with more brings them forward."""
    for mine, begun in ((V[1], []), (V[4], [LoadWork(RUN, V[4])])):
        run = restored([mine])
        run.state.versions.learn_head(OTHER, V[3].head, [OTHER])
        assert works(run.reconcile(1.0, around(1, 2, gathered=False), FreeSlots(1))) == begun


def begin(run: Run, now: float) -> int:
    """The call of the load that is begun now."""
    (call,) = (action.call for action in run.reconcile(now, around(1), FreeSlots(1)) if isinstance(action, Start))
    return call


def reported(actions: Sequence[Action]) -> list[str]:
    return [getattr(action, "name", "") for action in actions if hasattr(action, "fields")]


def test_a_damaged_checkpoint_is_refused_and_the_next_older_one_taken() -> None:
    """By the reader who found it damaged, or by bytes that make other ids; the others are told that it is gone."""
    run = restored(V[1:4])
    out = run.broke(1.0, around(1, 2), begin(run, 1.0), Failed("damaged", "step-000003/x: ends too early"))
    assert "checkpoint.refused" in reported(out)
    heads = (V[2].head, V[1].head)
    assert Send(OTHER, CheckpointPut(RUN, 0, heads)) in out
    wrong = Done((Made("load", tuple((name, ref) for name, ref in V[1].state)),))
    out = run.finished(2.0, around(1), begin(run, 2.0), wrong)
    assert "checkpoint.refused" in reported(out)
    assert run.state.versions.own is None
    right = Done((Made("load", V[1].state),))
    out = run.finished(3.0, around(1), begin(run, 3.0), right)
    assert "checkpoint.loaded" in reported(out)
    assert run.state.versions.own == V[1]


def test_that_none_is_left_is_said_again() -> None:
    """It may be lost; others would count on that disk, and write none of their own."""
    run = restored([V[1]])
    gone = Send(OTHER, CheckpointPut(RUN, 0, ()))
    assert gone in run.broke(1.0, around(1, 2), begin(run, 1.0), Failed("damaged", "step-000001/x: ends too early"))
    run.state.versions.hold(V[1])  # made anew, or copied
    run.state.step(1).take_roster(make_roster(1, 0, [ME, OTHER], [ME, OTHER]))
    for now in (2.0, 3.0):
        assert gone in run.refresh(now, around(1, 2), at_once=True)


def break_three_times(run: Run, now: float, there: MeshView) -> list[Action]:
    """What follows from loads of one checkpoint that break for want of a sound engine."""
    out: list[Action] = []
    for attempt in range(3):
        at = now + 10 * attempt
        out = run.broke(at, there, begin(run, at), Failed("engine", "killed"))
    return out


def test_an_engine_that_breaks_over_a_checkpoint_tries_again_and_then_another_one() -> None:
    """One that always breaks must not hold up the run; but it says nothing of the disk, which still has it."""
    run = restored(V[1:3])
    break_three_times(run, 1.0, around(1))
    assert works(run.reconcile(40.0, around(1), FreeSlots(1))) == [LoadWork(RUN, V[1])]
    assert run.checkpoints.best == V[2]


def test_a_node_whose_engines_break_does_not_begin_anew_over_its_checkpoints() -> None:
    """After a boot without its devices or mounts a host loads nothing: that must not send the run back to version 0.
    The run fails, and its checkpoints wait for whoever mends the host and resumes it."""
    run = restored([V[3]])
    alone = around(1)
    out = break_three_times(run, 1.0, alone)
    now = 31.0
    while run.is_active and now < 200.0:
        now += 1.0
        out += (actions := run.reconcile(now, alone, FreeSlots(1)))
        assert InitWork() not in works(actions)
        for call in list(run.state.calls):
            out += run.broke(now, alone, call, Failed("engine", "killed"))
    assert run.status.state == runs.FAILED
    assert "checkpoint of step 3" in runs.outcome(run.status)["error"]
    assert run.checkpoints.best == V[3]


def test_a_node_that_cannot_load_its_checkpoint_copies_what_others_go_on_with() -> None:
    """A worse version that is alive is better than a better one that nobody can bring back."""
    run = restored([V[4]])
    break_three_times(run, 1.0, around(1))
    run.state.versions.learn_head(OTHER, V[3].head, [OTHER])
    assert works(run.reconcile(60.0, around(1, 2), FreeSlots(1))) == []


def test_a_folder_that_was_replaced_is_said_to_hold_the_new_version_only() -> None:
    """Of two branches' versions of one step the disk has the one that was saved last: a copy that is not there must
    not make older ones look spare."""
    run = restored(V[1:3])
    other_branch = made_version("w2", V[1], samples=9)
    run.checkpoints.saved(around(1, 2), other_branch, "step-000002", [])
    assert set(run.checkpoints.mine) == {V[1].id, other_branch.id}
