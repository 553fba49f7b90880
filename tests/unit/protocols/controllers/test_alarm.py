"""Alarms: what is done again and again, and a step in which nothing new comes about, is told once."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.controllers.alarm import REPEATED, STALLED_AFTER, Alarm
from dflow_protocols.controllers.checkpoints import Checkpoints
from dflow_protocols.controllers.stealing import Stealing
from dflow_protocols.events import Report
from dflow_protocols.names import MANIFEST, Partition, TaskKey
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.run_state.run_state import Call
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.sealing import sealed_chains
from dflow_protocols.work import ChainWork
from tests.unit.protocols.books import SUSPICION_S, ZERO, finished_partition, heartbeat, learn, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun

UNIT = TaskKey(0, "roll", Partition(0))
STAGES = ("roll", "score", "adv")
LONG = (STALLED_AFTER + 1.0) * SUSPICION_S


def alarm(run: ARun) -> Alarm:
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    return Alarm(run.state, checkpoints, Stealing(run.state, run.calls, run.outbox, None))


def call(*stages: str) -> Call:
    return Call(UNIT, ChainWork(0, stages, 0, ()), (), None, 0.0, 0, 0)


def names(run: ARun) -> list[str]:
    return [action.name for action in run.out if isinstance(action, Report)]


def test_a_unit_that_is_done_again_and_again_is_told_ever_less_often() -> None:
    """A person must know, and not be told a thousand times."""
    run = ARun()
    at_node = alarm(run)
    for _ in range(4 * REPEATED):
        at_node.done(call(*STAGES), run.out)
    assert [a.fields["times"] for a in run.out if isinstance(a, Report)] == [REPEATED, 2 * REPEATED, 4 * REPEATED]


def test_calls_of_one_partition_are_not_one_that_is_repeated() -> None:
    """Each engine and each segment has one of its own."""
    run = ARun()
    at_node = alarm(run)
    for begun in range(REPEATED):
        at_node.done(call(f"roll.{begun}"), run.out)
    assert names(run) == []


def test_counts_go_with_the_books_of_their_step() -> None:
    """What is kept of a run must not grow with its steps."""
    run = ARun()
    at_node = alarm(run)
    for _ in range(REPEATED - 1):
        at_node.done(call(*STAGES), run.out)
    run.state.free_before(1)
    at_node.reconcile(0.0, ALL, FreeSlots(0), run.out)
    at_node.done(call(*STAGES), run.out)
    assert names(run) == []


def test_a_step_without_anything_new_is_told_once_and_taken_back() -> None:
    """It neither fails nor gets anywhere: only a person can do something."""
    run = ARun(own=None)
    at_node = alarm(run)
    for now in (0.0, LONG, LONG + 1.0):
        at_node.reconcile(now, ALL, FreeSlots(1), run.out)
    assert names(run) == ["run.stalled"]
    run.hold(ZERO)
    at_node.reconcile(LONG + 2.0, ALL, FreeSlots(1), run.out)
    assert names(run) == ["run.stalled", "run.unstalled"]


def test_what_is_new_puts_the_alarm_off() -> None:
    """A record, a seal, a version: the run gets on, however slowly."""
    run = ARun(own=None)
    at_node = alarm(run)
    at_node.reconcile(0.0, ALL, FreeSlots(1), run.out)
    run.hold(ZERO)
    at_node.reconcile(LONG / 2, ALL, FreeSlots(1), run.out)
    learn(run.view(), *finished_partition(0))
    at_node.reconcile(LONG, ALL, FreeSlots(1), run.out)
    run.state.versions.observe(who(2), heartbeat(version("one", ZERO)))
    at_node.reconcile(LONG + 1.0, ALL, FreeSlots(1), run.out)
    assert names(run) == []


def test_what_no_living_member_offers_is_told_when_it_is_missed_and_when_it_is_there() -> None:
    """Each chain waits for a node that has what its stages require."""
    raw = two_steps().to_dict()
    raw["stages"][1]["requires"] = ["roomy"]
    run = ARun(Pipeline.from_dict(raw))
    at_node, chains = alarm(run), sealed_chains(run.view(), MANIFEST)
    for _ in range(2):
        at_node.needs(run.view(), chains, run.out)
    assert at_node.blocked == "needs `roomy` (stage score)"
    assert names(run) == ["run.blocked"]
    roomy = replace(ALL, offers={who(2): frozenset({"roomy"})})
    at_node.needs(run.view(1.0, roomy), chains, run.out)
    assert names(run) == ["run.blocked", "run.unblocked"]
