"""Rounds of a step: too few groups are kept, so other prompts are sampled, and whoever stops in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dflow_protocols.events import Action, Report, Start
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import Crash, Fault, Join, Pause, Trigger, sends
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import (
    TOY_PARTITIONS,
    two_steps,
    with_async,
    with_lag,
    with_rounds,
    with_segments,
    with_sizes,
    with_updates,
)
from dflow_protocols.wire.steps import SealPut
from dflow_protocols.work import ChainWork
from tests.support.simulated import ENDS_S, NOISES, Sampled, mesh, undisturbed_weights

EACH = 3 * TOY_PARTITIONS  # groups of a round, of which about four in five are kept
ROUNDS = with_rounds(two_steps(), 22, 4)  # in two rounds each step
SHORT = with_rounds(two_steps(), 2 * EACH, 2)
PIPELINES = {
    "two rounds of four": ROUNDS,
    "one of two": with_rounds(two_steps(), 0.5, 2),
    "never enough": SHORT,
    "four updates": with_rounds(with_updates(two_steps(), 2, 2), 22, 4),
    "behind": with_lag(ROUNDS, 1),
    "one partition": with_rounds(two_steps(partitions=1, leaves=1), 6, 5),
}


@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize("name", PIPELINES)
def test_weights_follow_from_the_rounds_and_not_from_the_mesh(name: str, nodes: int) -> None:
    """How many there are to be is a function of what they gave, and who runs them is not."""
    world, run = mesh(nodes, pipeline=PIPELINES[name], slots=(1, 2))
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINES[name])


@pytest.mark.parametrize("noise", NOISES)
def test_a_round_that_is_not_due_samples_nothing(noise: frozenset[type]) -> None:
    """Two rounds keep enough here, of the four that there might be."""
    world, run = mesh(3, pipeline=ROUNDS, noise=noise)
    sampled = Sampled()
    world.watch(sampled)
    finish(world, run, ENDS_S)
    rounds = {step: {part // TOY_PARTITIONS for at, part in sampled.of if at == step} for step in (0, 1)}
    assert noise or rounds == {0: {0, 1}, 1: {0, 1}}
    assert all(found == {*range(len(found))} for found in rounds.values())


def of_round(index: int, nth: int = 0, step: int = 0) -> Trigger:
    """The nth work that begins in a round."""
    begun: list[int] = []

    def trigger(who: int, performed: int, action: Action) -> bool:
        if not isinstance(action, Start) or not isinstance(work := action.work, ChainWork):
            return False
        if work.step != step or work.stages[0] != "roll" or work.partition // TOY_PARTITIONS != index:
            return False
        begun.append(work.partition)
        return len(begun) == nth + 1

    return trigger


def manifests(nth: int = 0) -> Trigger:
    return sends(SealPut, nth, where=lambda message: message.seal.kind == "manifest")


CASES: dict[str, Callable[[], tuple[Trigger, Fault, float]]] = {
    "the_last_of_a_round_is_run_by_who_dies": lambda: (of_round(0, TOY_PARTITIONS - 1), Crash(), 0.01),
    "who_begins_the_second_round_dies": lambda: (of_round(1), Crash(), 0.01),
    "who_begins_the_second_round_dies_and_comes_back": lambda: (of_round(1), Crash(restart_after_s=1.0), 0.01),
    "who_begins_the_second_round_stalls": lambda: (of_round(1), Pause(6.0), 0.01),
    "the_last_of_the_second_round_is_run_by_who_dies": lambda: (of_round(1, TOY_PARTITIONS - 1), Crash(), 0.01),
    "the_second_round_of_the_second_step_loses_a_node": lambda: (of_round(1, 1, step=1), Crash(), 0.01),
    "the_sealer_dies_with_the_manifest_on_one_replica": lambda: (manifests(), Crash(), 0.0),
    "the_sealer_stalls_with_the_manifest_on_one_replica": lambda: (manifests(), Pause(4.0), 0.0),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_step_of_several_rounds_survives(case: str, nodes: int, noise: frozenset[type]) -> None:
    """Each kept group is trained on once, in as many rounds as the sealed ones ask for: the world looks at that."""
    world, run = mesh(nodes, pipeline=ROUNDS, noise=noise)
    trigger, fault, after_s = CASES[case]()
    world.when(trigger, fault, after_s)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights(ROUNDS)


@pytest.mark.parametrize("noise", NOISES)
def test_a_joiner_amid_a_round_ends_with_the_others(noise: frozenset[type]) -> None:
    """It copies the version, and hears from the step's replicas how far its rounds are."""
    for nth in (0, 2, 4):
        world, run = mesh(2, pipeline=ROUNDS, noise=noise)
        joiner = world.add((0,))
        world.when(of_round(1, nth), Join(joiner.index), 0.0)
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed_weights(ROUNDS)


@pytest.mark.parametrize("change", [with_async, with_segments])
@pytest.mark.parametrize(
    "case", ["who_begins_the_second_round_dies", "the_sealer_dies_with_the_manifest_on_one_replica"]
)
def test_rounds_may_be_of_several_versions(case: str, change: Callable[[Pipeline, int], Pipeline]) -> None:
    """Steps overlap, so a round may be over, and the next one begin, under a version before that which trains on it."""
    world, run = mesh(3, pipeline=change(with_rounds(with_sizes(two_steps(), 4, TOY_PARTITIONS, 4), 1, 3), 2))
    trigger, fault, after_s = CASES[case]()
    world.when(trigger, fault, after_s)
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)
    figures = [advanced.metrics for _, advanced in world.advanced if "rounds" in advanced.metrics]
    assert {each["rounds"] for each in figures} >= {2}
    assert max(each["version_gap_max"] for each in figures) >= 1


class Shortages(Sampled):
    """A watcher that keeps what nodes say of steps that are short of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Mapping[str, Any]] = []

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Report) and action.name == "step.short":
            self.told.append(action.fields)


def test_a_step_that_never_has_enough_trains_on_what_there_is_and_says_so() -> None:
    """A run is not to die, or to wait, of prompts that teach nothing."""
    world, run = mesh(2, pipeline=SHORT)
    shortages = Shortages()
    world.watch(shortages)
    finish(world, run, ENDS_S)
    short = shortages.told
    assert {fields["step"] for fields in short} == {0, 1}
    assert all(fields["rounds"] == 2 and fields["kept"] < fields["until"] == 2 * EACH for fields in short)


def test_what_is_kept_beyond_enough_is_counted_and_not_trained_on() -> None:
    """A batch has the size that it is to have."""
    world, run = mesh(2, pipeline=ROUNDS)
    finish(world, run, ENDS_S)
    figures = [advanced.metrics for _, advanced in world.advanced if advanced.head.step and advanced.metrics]
    assert figures
    assert all(each["rounds"] == 2 and each["groups_kept"] - each["groups_surplus"] == 22 for each in figures)
