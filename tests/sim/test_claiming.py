"""Claiming under faults: broken hosts, tasks at fault, and every way in which a theft can go wrong half-way."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

from dflow_protocols.events import Action, Start
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import RunId, ShardId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state.calls import Calls
from dflow_protocols.run_state.status import FAILED, FINISHED, outcome
from dflow_protocols.simulator.drawn import swarm
from dflow_protocols.simulator.faults import Crash, Cut, Fault, Handicap, Join, Pause, Poison, Trigger, sends
from dflow_protocols.simulator.goals import ended, finish, node, state_at
from dflow_protocols.simulator.model.work import NOISY, PURE, WILD
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps, with_sizes
from dflow_protocols.simulator.world import World
from dflow_protocols.versions.own_updates import COPIED, LEAVE_AFTER
from dflow_protocols.wire.steps import ClaimPut, FailurePut, RecordPut, StealAsk, StealGrant, StealRefuse
from dflow_protocols.work import ApplyWork
from tests.support.simulated import ENDS_S, NOISES, mesh

WIDE = two_steps(partitions=12, leaves=8)
Case = Callable[[], tuple[Trigger, Fault, float]]

THEFTS: dict[str, Case] = {
    "the_thief_dies_as_it_asks": lambda: (sends(StealAsk), Crash(), 0.0),
    "the_victim_dies_after_granting": lambda: (sends(StealGrant), Crash(), 0.0),
    "the_victim_dies_while_the_thief_works": lambda: (sends(StealGrant), Crash(), 0.05),
    "the_victim_stalls_after_granting": lambda: (sends(StealGrant), Pause(4.0), 0.0),
    "the_victim_comes_back_with_nothing": lambda: (sends(StealGrant), Crash(None, 0.3), 0.0),
    "the_second_victim_dies_after_granting": lambda: (sends(StealGrant, 1), Crash(), 0.01),
    "who_refuses_dies": lambda: (sends(StealRefuse), Crash(), 0.0),
}


def slow_mesh(nodes: int, noise: frozenset[type] = PURE, pipeline: Pipeline = WIDE) -> tuple[World, RunId]:
    """A formed mesh whose last machine takes five times as long, in the moment of the submit."""
    world, run = mesh(nodes, noise=noise, pipeline=pipeline)
    world.at(world.now, Handicap("slow", nodes - 1))
    return world, run


@cache
def wide_weights() -> tuple[ShardId, ...]:
    """The parameters that one node alone makes of the wide pipeline."""
    world, run = mesh(1, pipeline=WIDE)
    return finish(world, run, ENDS_S)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("case", THEFTS)
def test_a_theft_that_breaks_off_costs_time_only(case: str, noise: frozenset[type]) -> None:
    """Leases protect nothing: what two nodes run is done twice, what nobody runs is due at its home again."""
    moment, fault, after_s = THEFTS[case]()
    world, run = slow_mesh(3, noise)
    world.when(moment, fault, after_s)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == wide_weights()


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
@pytest.mark.parametrize("message", [StealAsk, StealGrant, StealRefuse, ClaimPut, RecordPut])
@pytest.mark.parametrize("nth", [0, 1, 3])
def test_a_message_of_a_theft_may_be_lost(message: type, nth: int, noise: frozenset[type]) -> None:
    """The thief repeats its request, the victim its grant; a grant that nobody heard of ends by itself."""
    world, run = slow_mesh(3, noise)
    for other in (0, 1):
        world.when(sends(message, nth, node=2), Cut(2, other, 0.02))
        world.when(sends(message, nth, node=other), Cut(other, 2, 0.02))
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == wide_weights()


@pytest.mark.parametrize("timing", [Timing.lan(), Timing.wan()], ids=["lan", "wan"])
def test_what_a_home_never_begins_is_taken_by_others(timing: Timing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives and claims nothing. With the times of a WAN who was idle asked a replica again and again, each time
    before the last answer counted, and took nothing for ever."""
    world = World(partial(spawn, timing=timing, steals=False), nodes=3, seeds=(0, 1, 2))
    world.run(timing.stable_s + 5.0)
    idle, start = world.hosts[2].id, Calls.start
    monkeypatch.setattr(Calls, "start", lambda self, *args: self._state.me != idle and start(self, *args))
    world.expect(5 * ENDS_S, ended(world, world.submit(0, two_steps())), "it ends")


def test_a_slow_machine_holds_nobody_up() -> None:
    """With stealing a run on three machines, one of which takes five times as long, is much faster than without."""
    seconds = {}
    for steals in (True, False):
        world, run = mesh(3, pipeline=WIDE, steals=steals)
        world.at(world.now, Handicap("slow", 2))
        began = world.now
        world.expect(ENDS_S, ended(world, run), "the run finishes")
        seconds[steals] = world.now - began
        assert finish(world, run, ENDS_S) == wide_weights()
    assert seconds[False] > 1.5 * seconds[True]


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_a_machine_that_fails_everything_at_once_eats_no_work(nodes: int, noise: frozenset[type]) -> None:
    """It answers every ping. After three tasks of a stage it leaves that stage to others, in later steps, too."""
    world, run = mesh(nodes, noise=noise, pipeline=WIDE)
    world.at(world.now, Handicap("broken", nodes - 1))
    world.expect(ENDS_S, ended(world, run), "the others finish the run")
    failed = [key for key in node(world.hosts[0]).runs[run].state.failures.known if key[0].stage == "roll"]
    assert len(failed) <= 2 * 3
    weights = finish(world, run, ENDS_S)
    assert noise or weights == wide_weights()


def test_a_machine_that_fails_to_apply_copies_what_others_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that starts anew for each try takes longer than the pause between two of them."""
    monkeypatch.setattr("dflow_protocols.simulator.model.slots.BREAKS_AFTER_S", 10.0)
    world, run = mesh(3)
    world.expect(ENDS_S, lambda: [step_of(world, run, index) for index in range(3)] == [0, 0, 0], "the run begins")
    world.at(world.now, Handicap("broken", 2))
    world.expect(ENDS_S, lambda: step_of(world, run, 0) == 1, "the others make the next version")
    world.expect(15.0, lambda: step_of(world, run, 2) == 1, "who fails at it holds it soon")


def test_whose_updates_always_fail_leaves_them_to_others() -> None:
    """Each try costs an engine and a suspicion time. It copies a number of versions, each as soon as it is there, and
    tries again, so that a host that was mended is of use again."""
    world, run = mesh(3, pipeline=with_sizes(two_steps(), 2 + LEAVE_AFTER + COPIED, 3, 2))
    tried: list[int] = []
    world.expect(ENDS_S, lambda: step_of(world, run, 2) == 0, "the run begins")
    world.at(world.now, Handicap("broken", 2))

    def note(who: int, performed: int, action: Action) -> bool:
        if who == 2 and isinstance(action, Start) and isinstance(action.work, ApplyWork):
            tried.append(action.work.step)
        return False

    world.when(note, Crash(2))
    world.expect(ENDS_S, ended(world, run), "the others finish the run")
    assert len(set(tried)) == LEAVE_AFTER + 1
    first, _, last = sorted(set(tried))
    assert last - first == LEAVE_AFTER + COPIED
    told = [report.fields["until"] for _, report in world.reports if report.name == "update.withdrawn"]
    assert told[0] == last + 1, "it is said from which version on it tries again"


def test_where_all_updates_fail_somebody_tries_again() -> None:
    """Each would wait for the others to make the next version: a fault that all had for a while must not last."""
    world, run = mesh(2, pipeline=with_sizes(two_steps(), 8, 2, 2))
    world.expect(ENDS_S, lambda: step_of(world, run, 0) == 1, "the run begins")
    for index in (0, 1):
        node(world.hosts[index]).runs[run].state.own_updates.left_before = 100
    finish(world, run, ENDS_S)


def step_of(world: World, run: RunId, index: int) -> int | None:
    """Of the newest version that this node holds."""
    known = node(world.hosts[index]).runs.get(run)
    return known.state.versions.own.step if known is not None and known.state.versions.own is not None else None


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_a_task_that_kills_every_engine_ends_the_run_with_evidence(nodes: int) -> None:
    """Three engines die of it, on three hosts or on all there are; that is no accident any more."""
    world, run = mesh(nodes)
    world.at(world.now, Poison("roll", 2, "engine"))
    world.expect(ENDS_S, ended(world, run, FAILED), "every node says that the run has failed")
    said = outcome(node(world.hosts[0]).runs[run].status)
    assert said["error"].startswith("0/roll/p2 failed")
    assert len(said["evidence"]) >= 3
    assert len({who for who, *_ in said["evidence"]}) == min(3, nodes)


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_user_code_that_fails_on_one_partition_is_left_out_alike_everywhere(nodes: int, noise: frozenset[type]) -> None:
    """Any host finds that error, so the weights stay a function of the pipeline."""
    pipeline = two_steps(on_poison="skip")
    world, run = mesh(nodes, noise=noise, pipeline=pipeline)
    world.at(world.now, Poison("roll", 2, "user"))
    weights = finish(world, run, ENDS_S)
    assert node(world.hosts[0]).runs[run].summary()["skipped"] == 2
    if not noise:
        alone, again = mesh(1, pipeline=pipeline)
        alone.at(alone.now, Poison("roll", 2, "user"))
        assert finish(alone, again, ENDS_S) == weights


def test_where_weights_are_a_function_of_the_pipeline_a_dying_engine_leaves_nothing_out() -> None:
    """Another host might have lived: so the run fails, also with `on_poison: skip`."""
    world, run = mesh(3, pipeline=two_steps(on_poison="skip"))
    world.at(world.now, Poison("roll", 2, "engine"))
    world.expect(ENDS_S, ended(world, run, FAILED), "every node says that the run has failed")


def test_a_run_of_which_every_partition_fails_ends_as_failed() -> None:
    """To go on without anything would look like training."""
    world, run = mesh(2, pipeline=two_steps(on_poison="skip"))
    for partition in range(5):
        world.at(world.now, Poison("roll", partition, "user"))
    world.expect(ENDS_S, ended(world, run, FAILED), "every node says that the run has failed")


@pytest.mark.parametrize("lost", range(4))
def test_word_of_a_failure_may_be_lost(lost: int) -> None:
    """Who failed says it again while the step waits."""
    world, run = mesh(3)
    world.at(world.now, Poison("roll", 2, "user"))
    for other in (1, 2):
        world.when(sends(FailurePut, lost, node=0), Cut(0, other, 0.05))
    world.expect(ENDS_S, ended(world, run, FAILED), "every node says that the run has failed")


def test_a_broken_machine_that_is_cut_off_does_not_end_the_run() -> None:
    """Alone, every task looks faulty to it."""
    swarm.live_through(7074)


def test_a_stage_that_nobody_can_run_waits_and_goes_on_when_somebody_joins() -> None:
    """Nothing fails; what is missing is said at once."""
    raw = two_steps().to_dict()
    raw["stages"][1]["requires"] = ["roomy"]
    world, run = mesh(2, pipeline=Pipeline.from_dict(raw))
    joiner = world.add((0,))
    joiner.roles = ("roomy",)
    world.expect(10.0, lambda: blocked(world, run), "people are told what is missing")
    world.run(20.0)
    assert blocked(world, run)
    world.at(world.now, Join(joiner.index))
    world.expect(ENDS_S, ended(world, run), "the run finishes")
    assert not blocked(world, run)


def test_a_task_at_fault_ends_the_run_where_one_host_alone_can_run_it() -> None:
    """What a later stage of its chain requires counts too: others that could run the first one have no say."""
    raw = two_steps().to_dict()
    raw["stages"][1]["requires"] = ["roomy"]
    world, run = mesh(3, pipeline=Pipeline.from_dict(raw))
    joiner = world.add((0,))
    joiner.roles = ("roomy",)
    world.at(world.now, Poison("roll", 2, "engine"))
    world.at(world.now, Join(joiner.index))
    world.expect(ENDS_S, ended(world, run, FAILED), "every node says that the run has failed")


def test_a_run_in_the_midst_of_long_rollouts_lets_another_one_have_its_turn() -> None:
    """A partition that waits in the slot ahead of its turn would keep the other run's blocks out until all are done."""
    world, long = mesh(1, pipeline=two_steps(partitions=60))
    world.run(1.0)
    short = world.submit(0, two_steps())
    world.expect(ENDS_S, lambda: state_at(world.hosts[0], short) == FINISHED, "the short run finishes")
    assert node(world.hosts[0]).runs[long].summary()["step"] == 0


def blocked(world: World, run: RunId) -> bool:
    known = [node(host).runs[run] for host in world.live() if run in node(host).runs]
    return any("`roomy` (stage score)" in each.summary()["blocked"] for each in known)
