"""Hand-made cases: each one a point at which a step could get stuck, mix, or be trained twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dflow_protocols.events import Action, Event, Start
from dflow_protocols.names import Block, Part, Partition, Slice
from dflow_protocols.simulator.faults import (
    BreakEngine,
    Cancel,
    Crash,
    Cut,
    Fault,
    Join,
    Pause,
    Split,
    Trigger,
    action,
    sends,
    starts,
)
from dflow_protocols.simulator.goals import ended, finish, finish_cancelled, state_at
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.toy import TOY_PARTITIONS, two_models, two_steps, with_reference
from dflow_protocols.wire.steps import RecordPut, SealPut
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, InitWork, SaveWork, SliceWork
from tests.support.simulated import ENDS_S, NOISES, first_time, mesh, undisturbed_weights

Case = Callable[[], tuple[Trigger, Fault, float]]


def seals(kind: str, nth: int = 0) -> Trigger:
    return sends(SealPut, nth, where=lambda message: message.seal.kind == kind)


def publishes(part: type[Part], nth: int = 0) -> Trigger:
    def has(message: Any) -> bool:
        return any(isinstance(record.task.part, part) for record in message.records)

    return sends(RecordPut, nth, where=has)


CASES: dict[str, Case] = {
    "the_sealer_dies_with_the_manifest_on_one_replica": lambda: (seals("manifest"), Crash(), 0.0),
    "the_sealer_dies_with_the_manifest_on_two_replicas": lambda: (seals("manifest", 1), Crash(), 0.0),
    "the_sealer_of_the_second_step_dies_at_its_manifest": lambda: (seals("manifest", 4), Crash(), 0.0),
    "the_sealer_stalls_with_the_manifest_on_one_replica": lambda: (seals("manifest"), Pause(4.0), 0.0),
    "the_sealer_stalls_for_less_than_a_suspicion": lambda: (seals("manifest"), Pause(1.0), 0.0),
    "the_update_is_sealed_on_one_replica_by_who_dies": lambda: (seals("update"), Crash(), 0.0),
    "the_update_is_sealed_on_two_replicas_by_who_dies": lambda: (seals("update", 1), Crash(), 0.0),
    "the_update_is_sealed_on_one_replica_by_who_stalls": lambda: (seals("update"), Pause(4.0), 0.0),
    "a_slice_owner_dies_before_it_publishes": lambda: (starts(SliceWork), Crash(), 0.005),
    "a_slice_owner_dies_as_it_publishes": lambda: (publishes(Slice), Crash(), 0.0),
    "a_slice_owner_dies_after_it_published": lambda: (publishes(Slice, 1), Crash(), 0.02),
    "a_slice_owner_stalls_and_another_publishes_too": lambda: (starts(SliceWork), Pause(4.0), 0.005),
    "a_leaf_dies_half_done": lambda: (starts(BlockWork, nth=1), Crash(), 0.05),
    "a_block_is_published_by_who_dies": lambda: (publishes(Block), Crash(), 0.0),
    "a_rollout_is_published_by_who_dies": lambda: (publishes(Partition), Crash(), 0.0),
    "a_node_dies_inside_apply": lambda: (starts(ApplyWork), Crash(), 0.02),
    "a_node_comes_back_from_a_death_inside_apply": lambda: (starts(ApplyWork), Crash(None, 0.5), 0.02),
    "the_last_apply_of_a_step_dies": lambda: (starts(ApplyWork, nth=2), Crash(), 0.02),
    "an_engine_breaks_inside_apply": lambda: (starts(ApplyWork), BreakEngine(1), 0.0),
    "an_engine_breaks_inside_apply_twice": lambda: (starts(ApplyWork), BreakEngine(2), 0.0),
    "an_engine_breaks_at_a_leaf": lambda: (starts(BlockWork), BreakEngine(1), 0.0),
    "an_engine_breaks_at_version_0": lambda: (starts(InitWork), BreakEngine(1), 0.0),
    "a_node_dies_as_it_saves": lambda: (starts(SaveWork), Crash(), 0.05),
    "a_node_is_deaf_while_it_applies": lambda: (starts(ApplyWork), Cut(1, 0, 6.0), 0.0),
    "a_node_is_cut_off_when_the_manifest_is_sealed": lambda: (seals("manifest"), Split((1,), 6.0), 0.0),
    "a_node_hears_nothing_after_the_update_is_sealed": lambda: (seals("update"), Split((2,), 6.0, inbound=True), 0.0),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_step_survives(case: str, nodes: int, noise: frozenset[type]) -> None:
    """Each case strikes whoever does the thing first, in the smallest mesh and in one that has somebody to spare."""
    moment, fault, after_s = CASES[case]()
    if nodes == 2 and isinstance(fault, Split):
        fault = Split(fault.side if fault.side == (1,) else (0,), fault.seconds, fault.inbound)
    world, run = mesh(nodes, noise=noise)
    world.when(moment, fault, after_s)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("case", CASES)
def test_a_step_survives_whose_outputs_do_not_go_along_with_records(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the toy pipeline do, and replicas hold them; these are copied by who trains beside their maker, who is
    no replica as often as not."""
    monkeypatch.setattr("dflow_protocols.work.MOST_SHORT_BYTES", 0)
    moment, fault, after_s = CASES[case]()
    world, run = mesh(5)
    world.when(moment, fault, after_s)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nth", [0, 4, 9])
def test_a_node_dies_between_the_calls_of_a_chain(nth: int, noise: frozenset[type]) -> None:
    """What was sampled is told before a reference scores it: others go on from the copy, or sample again."""
    world, run = mesh(3, noise=noise, pipeline=with_reference(two_steps()))
    world.when(publishes(Partition, nth), Crash(), 0.01)
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)


class Chains:
    """Which stages of chains are begun, in order, by who drives."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, tuple[str, ...]]] = []

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start) and isinstance(action.work, ChainWork):
            self.begun.append((action.work.step, action.work.stages))

    def heard(self, host: Host, event: Event) -> None:
        """Nothing that matters here."""

    def dies(self, host: Host) -> None:
        """None does."""


def test_all_partitions_are_sampled_before_a_reference_scores_them() -> None:
    """The device changes its models once a step, and copies are made while others are still sampled."""
    world, run = mesh(1, pipeline=with_reference(two_steps()))
    world.watch(seen := Chains())
    finish(world, run, ENDS_S)
    first = [stages for step, stages in seen.begun if step == 0 and stages[0] != "held"]
    assert first == [("roll",)] * TOY_PARTITIONS + [("ref", "score", "adv")] * TOY_PARTITIONS


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("kind", ["manifest", "update"])
def test_a_sealer_dies_before_anybody_has_its_seal(kind: str, nodes: int, noise: frozenset[type]) -> None:
    """It had decided; what it knew is with the others, or made again."""
    sealer, performed = first_time(seals(kind), nodes, noise)
    world, run = mesh(nodes, noise=noise)
    world.when(action(sealer, performed - 1), Crash(sealer))
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("work", [BlockWork, SliceWork, ApplyWork])
def test_one_trainer_is_left_in_the_middle_of_an_update(work: type, noise: frozenset[type]) -> None:
    """It makes again what only the dead held, and commits alone."""
    world, run = mesh(3, noise=noise)
    world.when(starts(work, nth=1), Crash(1))
    world.when(starts(work, nth=1), Crash(2))
    world.expect(ENDS_S, ended(world, run), "the one that is left ends the run")
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [2, 4, 5])
def test_two_halves_go_on_and_one_chain_is_left(nodes: int, noise: frozenset[type]) -> None:
    """A split in the middle, long enough for both sides to think the other dead and to finish steps of their own."""
    for seconds in (3.0, 12.0):
        world, run = mesh(nodes, noise=noise)
        world.run(0.7)
        world.at(world.now, Split(tuple(range(nodes // 2)), seconds))
        world.run(seconds + 0.1)
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_a_joiner_in_the_middle_ends_with_the_others(noise: frozenset[type]) -> None:
    """It copies what it can, and changes no weight."""
    for seconds in (0.3, 0.8, 1.6, 2.4):
        world, run = mesh(2, noise=noise)
        joiner = world.add((0,))
        world.at(world.now + seconds, Join(joiner.index))
        world.run(seconds + 0.1)
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("tenths", range(0, 40, 4))
def test_a_joiner_goes_on_when_everybody_before_it_died(tenths: int) -> None:
    """Liveness rests on no roster: who lives and knows of the run carries it to its end, from whatever it has heard."""
    world, run = mesh(2)
    joiner = world.add((0,))
    world.at(world.now + 0.2, Join(joiner.index))
    world.run(30.0, lambda: joiner.machine is not None and state_at(joiner, run) is not None)
    world.at(world.now + tenths / 10, Crash(0))
    world.at(world.now + tenths / 10, Crash(1))
    world.run(tenths / 10 + 0.1)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_power_cut_of_the_whole_site_is_survived(nodes: int) -> None:
    """Every memory is lost at once; disks remember that there is a run."""
    for seconds in (0.3, 1.2, 2.0):
        world, run = mesh(nodes)
        for host in world.hosts:
            world.at(world.now + seconds, Crash(host.index, 1.0))
        world.run(seconds + 1.5)
        assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("nodes", [1, 2])
def test_all_daemons_stall_and_wake(nodes: int) -> None:
    """A virtual machine's pause: nobody was there to notice."""
    world, run = mesh(nodes)
    for host in world.hosts:
        world.at(world.now + 0.6, Pause(8.0, host.index))
    world.run(9.0)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_a_run_may_be_submitted_to_a_mesh_that_is_just_forming() -> None:
    """Nobody is stable yet, and most have not met."""
    for age in (0.05, 0.3, 1.0, 2.0):
        world, run = mesh(4, age_s=age, submit_to=3)
        assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_a_node_whose_engine_always_breaks_holds_nobody_up(nodes: int) -> None:
    """It answers every ping and finishes nothing: what is dealt to it falls to the others, and the run is theirs."""
    world, run = mesh(nodes)
    world.at(world.now, BreakEngine(10_000, "engine", nodes - 1))
    world.expect(ENDS_S, ended(world, run), "the others finish the run")
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_trainer_that_cannot_apply_holds_nobody_up(nodes: int) -> None:
    """It answers every ping and does all else: it copies what others applied, and counts for the commit then."""
    world, run = mesh(nodes)
    for nth in range(100):
        world.when(starts(ApplyWork, nth=nth, node=nodes - 1), BreakEngine(1, "engine", nodes - 1))
    world.expect(ENDS_S, ended(world, run), "all end the run")
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("one_way", [True, False])
@pytest.mark.parametrize(("source", "to"), [(0, 1), (1, 2), (2, 0)])
def test_a_link_that_stays_cut_stops_nothing(source: int, to: int, one_way: bool) -> None:
    """Both ends live, as the third node knows; what they cannot tell each other goes round, or is done elsewhere."""
    world, run = mesh(3, noise=NOISY)
    world.at(world.now, Cut(source, to, 10 * ENDS_S))
    if not one_way:
        world.at(world.now, Cut(to, source, 10 * ENDS_S))
    world.expect(ENDS_S, ended(world, run), "the run finishes beside the cut")
    finish(world, run, ENDS_S)


PHASES: dict[str, Callable[[], Trigger]] = {
    "version_0": lambda: starts(InitWork),
    "rollouts": lambda: starts(ChainWork, nth=1),
    "sealing": lambda: seals("manifest"),
    "leaves": lambda: starts(BlockWork),
    "slices": lambda: starts(SliceWork),
    "apply": lambda: starts(ApplyWork),
    "the_second_step": lambda: starts(ChainWork, step=1),
    "the_end": lambda: starts(SaveWork),
}


@pytest.mark.parametrize("asked", [0, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_a_run_can_be_cancelled_in_each_phase(phase: str, asked: int) -> None:
    """Whoever is asked: tasks stop, shards are freed everywhere, and the tombstone stays."""
    world, run = mesh(3)
    world.when(PHASES[phase](), Cancel(asked), after_s=0.01)
    world.run(30.0, ended(world, run, "cancelled"))
    finish_cancelled(world, run, ENDS_S)


def test_user_code_that_always_fails_ends_the_run_as_failed() -> None:
    """The same error twice is no accident: the run says so everywhere instead of trying for ever."""
    world, run = mesh(3)
    for host in world.hosts:
        world.at(world.now, BreakEngine(1000, "user", host.index))
    world.expect(ENDS_S, ended(world, run, "failed"), "every node says that the run has failed")


def test_a_dead_node_that_returns_learns_that_the_run_was_cancelled() -> None:
    """Its own disk says that the run is active."""
    world, run = mesh(3)
    world.at(world.now + 0.5, Crash(2, 10.0))
    world.at(world.now + 1.0, Cancel(0))
    world.run(11.0)
    finish_cancelled(world, run, ENDS_S)


TURNS: dict[str, Callable[[], Trigger]] = {
    "as_the_judge_is_applied": lambda: starts(ApplyWork, step=0),
    "in_the_first_leaf_of_the_policy": lambda: starts(BlockWork, step=1),
    "as_the_policy_is_applied": lambda: starts(ApplyWork, step=1),
    "as_the_policy_is_applied_again": lambda: starts(ApplyWork, step=2),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("moment", TURNS)
def test_a_death_amid_two_models_that_take_turns(moment: str, noise: frozenset[type]) -> None:
    """Each step trains one of them, by its stage's `when`, and carries the other on as it is."""
    world, run = mesh(3, noise=noise, pipeline=two_models())
    world.when(TURNS[moment](), Crash(), after_s=0.01)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    if not noise:
        alone, again = mesh(1, pipeline=two_models())
        assert weights == finish(alone, again, ENDS_S)
