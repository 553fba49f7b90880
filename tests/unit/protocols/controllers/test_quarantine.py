"""Quarantine: a task that fails on enough nodes ends the run, or is left out; alone only after a wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.claiming.failure import Failures
from dflow_protocols.controllers.quarantine import ALONE_WAIT, Quarantine
from dflow_protocols.events import Report
from dflow_protocols.names import MANIFEST, Partition, TaskKey, content_id
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.simulator.toy import several_updates, two_steps
from dflow_protocols.wire.steps import Failure, Seal, Skip, Withdrawal
from tests.unit.protocols.books import RUN, SPEC, ZERO, finished_partition, learn, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

TASK = TaskKey(0, "roll", Partition(0))


def failed(run: ARun, *nodes: int, kind: str = "user", error: str = "division by zero") -> None:
    for node in nodes:
        run.state.failures.add(Failure(TASK, who(node), 1, kind, content_id("error", error), error))


def names(run: ARun) -> list[str]:
    return [action.name for action in run.out if isinstance(action, Report)]


def test_an_error_that_two_nodes_found_ends_the_run_with_its_evidence() -> None:
    """The task is at fault, and whoever reads the end must see what and where."""
    run = ARun()
    quarantine = Quarantine(run.state, run.outbox)
    failed(run, 1)
    quarantine.judge(0.0, ALL, run.out)
    assert run.out == []
    failed(run, 2)
    quarantine.judge(0.0, ALL, run.out)
    assert run.state.status.state == runs.FAILED
    said = runs.outcome(run.state.status)
    assert said["error"] == "0/roll/p0 failed: division by zero"
    assert sorted(node for node, *_ in said["evidence"]) == [who(1), who(2)]


def test_where_the_pipeline_skips_poison_the_partition_is_left_out() -> None:
    """One prompt that no code can score must not end a run of days."""
    run = ARun(two_steps(on_poison="skip"))
    failed(run, 1, 2)
    quarantine = Quarantine(run.state, run.outbox)
    quarantine.judge(0.0, ALL, run.out)
    quarantine.judge(1.0, ALL, run.out)
    assert run.state.is_active
    (skip,) = run.state.skipped.values()
    assert (skip.task, skip.error, skip.nodes) == (TASK, "division by zero", (who(1), who(2)))
    assert names(run) == []


def test_what_is_left_out_is_told_once_it_is_settled() -> None:
    """Who hears of failures alone takes for skipped what others did in the meantime; and each update of a step names
    again what the first left out."""
    run = ARun(several_updates())
    quarantine = Quarantine(run.state, run.outbox)
    skip = Skip(TASK, "user", "digest", "division by zero", (who(1), who(2)))
    later = replace(skip, task=replace(TASK, step=2))
    for left_out in ((), (skip,), (skip,), (later,), (replace(later, task=TaskKey(2, "roll", Partition(1))),)):
        number = left_out[0].task.step if left_out else 0
        manifest = Seal(SPEC, number, ZERO.id, ZERO.id, MANIFEST, 0, 0, (), left_out)
        quarantine.tell_skipped(manifest, run.out)
    told = [action.fields["task"] for action in run.out if isinstance(action, Report)]
    assert told == ["0/roll/p0", "2/roll/p1"]


def test_a_run_is_not_left_without_any_partition() -> None:
    """A step that trains on nothing is no step: the code is at fault, not the data."""
    run = ARun(two_steps(partitions=1, leaves=2, on_poison="skip"))
    failed(run, 1, 2)
    Quarantine(run.state, run.outbox).judge(0.0, ALL, run.out)
    assert run.state.status.state == runs.FAILED


def test_what_somebody_did_after_all_counts_against_nobody() -> None:
    """Its records are there: two hosts were broken, not the task."""
    run = ARun()
    failed(run, 1, 2)
    learn(run.view(), *finished_partition(0), holders=(1, 2))
    Quarantine(run.state, run.outbox).judge(0.0, ALL, run.out)
    assert run.state.is_active


DRAINED = replace(ALL, drained=frozenset((who(2), who(3))))


FILES = Withdrawal("roll", "files", "1 of 2 is under way")
DEVICE = Withdrawal("roll", "device", "its device failed")


@pytest.mark.parametrize(
    ("alone", "others"),
    [
        pytest.param(mesh(1), (), id="cut off"),
        pytest.param(DRAINED, (), id="others are drained"),
        pytest.param(ALL, (FILES,), id="others lack files"),
        pytest.param(ALL, (DEVICE,), id="others lost their devices"),
    ],
)
def test_who_sees_few_of_the_roster_waits_before_dying_engines_count(
    alone: MeshView, others: tuple[Withdrawal, ...]
) -> None:
    """To a broken host that was cut off, or that alone can try, every task looks faulty."""
    run = ARun()
    for node in (who(2), who(3)):
        run.state.ability.learn(node, others)
    for attempt in range(Failures.ANY_ERROR):
        run.state.failures.record(TASK, who(1), "engine", f"killed {attempt}")
    quarantine = Quarantine(run.state, run.outbox)
    quarantine.judge(0.0, alone, run.out)
    assert run.state.is_active
    quarantine.judge(ALONE_WAIT + 0.1, alone, run.out)
    assert run.state.status.state == runs.FAILED


def test_a_partition_left_out_of_an_old_step_is_forgotten_with_its_books() -> None:
    """What is kept of a run must not grow with its steps."""
    run = ARun()
    old = Skip(TASK, "user", "digest", "error", (who(1),))
    run.state.skip(old)
    run.state.skip(replace(old, task=TaskKey(1, "roll", Partition(0))))
    run.state.free_before(1)
    assert [task.step for task in run.state.skipped] == [1]
    assert run.state.id == RUN
