"""Several updates a step: each makes a version, all train on what was sampled once, and whoever stops in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from dflow_protocols.controllers.checkpoints import SAVERS
from dflow_protocols.events import Action, Start
from dflow_protocols.names import MANIFEST, Partition, ShardId
from dflow_protocols.simulator.faults import Crash, Join, Pause, When
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import several_updates, two_steps, with_updates
from dflow_protocols.simulator.watching.checker import Steady
from dflow_protocols.simulator.watching.limits import MEASURE_S, Limits
from dflow_protocols.work import SaveWork
from tests.support.simulated import ENDS_S, NOISES, Sampled, mesh, samples_moved, undisturbed_weights

SEVERAL = several_updates()  # 5 updates in the first step, 4 in the second
FIRSTS = {0, 5}


@pytest.mark.parametrize("noise", NOISES)
def test_what_a_step_sampled_serves_all_its_updates(noise: frozenset[type]) -> None:
    """Each partition is run once, at the version that the step began with, and each further manifest names what came of
    it: also where running it once more would give something else."""
    world, run = mesh(3, pipeline=SEVERAL, noise=noise)
    sampled = Sampled()
    world.watch(sampled)
    weights = finish(world, run, ENDS_S)
    assert {step for step, _ in sampled.of} == FIRSTS
    assert noise or weights == undisturbed_weights(SEVERAL)
    assert {head.step for _, advanced in world.advanced for head in [advanced.head]} == set(range(10))


def test_all_updates_of_a_step_train_where_its_samples_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another order of nodes in each, four of them brought all samples to other nodes nearly twice more."""
    monkeypatch.setattr("dflow_protocols.work.MOST_SHORT_BYTES", 0)
    pipeline = with_updates(two_steps(partitions=32, leaves=32), epochs=4, minibatches=1)
    world, run = mesh(8, pipeline=pipeline, steals=False)
    finish(world, run, ENDS_S)
    assert all(sum(moved) <= 1.2 for moved in samples_moved(world).values())


def test_updates_without_anything_to_train_on_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hands the state on: a run in which all groups are flat is as fast as its sampling."""
    monkeypatch.setattr("dflow_protocols.simulator.model.work.DROPPED_SHARE", 1.1)
    stages = [stage for stage in SEVERAL.stages if stage.id != "held"]
    world, run = mesh(1, pipeline=replace(SEVERAL, steps=1, stages=stages))
    moments = list[float]()
    over = ended(world, run)

    def is_over() -> bool:
        moments.extend([world.now] * (len(world.advanced) - len(moments)))
        return over()

    world.run(ENDS_S, is_over)
    made, one, *more = moments  # version 0, and those of the five updates
    assert made < one
    assert more == [one] * 4


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
@pytest.mark.parametrize("version", range(1, 9))
def test_a_node_may_die_between_any_two_updates(version: int, comes_back: bool) -> None:
    """It is a death between two versions. Of three nodes two hold all that was sampled."""
    for which in range(3):
        world, run = mesh(3, pipeline=SEVERAL, seed=which)
        world.plan(When("advance", version, node=which), Crash(which, 1.0 if comes_back else None))
        world.run(ENDS_S, ended(world, run))
        assert world.hosts[which].lives == (2 if comes_back else 1)
        assert finish(world, run, ENDS_S) == undisturbed_weights(SEVERAL)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("version", [2, 6])
def test_a_node_may_stall_between_two_updates(version: int, noise: frozenset[type]) -> None:
    """It copies what the others made meanwhile, and goes on with what they were trained on."""
    world, run = mesh(3, pipeline=SEVERAL, noise=noise)
    world.plan(When("advance", version, node=1), Pause(8.0, 1))
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights(SEVERAL)


@pytest.mark.parametrize("noise", NOISES)
def test_a_joiner_amid_the_updates_ends_with_the_others(noise: frozenset[type]) -> None:
    """It copies a version in the middle of a step, and hears from the others what that is trained on."""
    for seconds in (1.2, 2.0, 2.8):
        world, run = mesh(2, pipeline=SEVERAL, noise=noise)
        joiner = world.add((0,))
        world.at(world.now + seconds, Join(joiner.index))
        world.run(seconds + 0.1)
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed_weights(SEVERAL)


def test_what_was_lost_is_sampled_again_from_the_version_that_sampled_it() -> None:
    """All who held a partition died, and who is left has the version that the step began with, the same bytes again."""
    for which in ((0, 1), (1, 2)):
        world, run = mesh(3, pipeline=SEVERAL)
        for index in which:
            world.plan(When("advance", 1, node=3 - sum(which)), Crash(index))
        sampled = Sampled()
        world.watch(sampled)
        world.run(ENDS_S, ended(world, run))
        assert len(world.live()) == 1
        assert {step for step, _ in sampled.of} - FIRSTS
        assert finish(world, run, ENDS_S) == undisturbed_weights(SEVERAL)


def are_down(hosts: Sequence[Host]) -> Callable[[], bool]:
    """Whether none of them answers."""
    return lambda: not any(host.answers for host in hosts)


def test_a_joiner_goes_on_without_what_nobody_has_any_more() -> None:
    """It holds a version in the middle of a step, and neither what that is trained on nor what sampled it. The run goes
    on, and says that its weights are not to be found again."""
    for version in (2, 3, 4):
        world, run = mesh(2, pipeline=SEVERAL)
        joiner = world.add((0,))
        world.plan(When("advance", version, node=0), Join(joiner.index))
        for index in (0, 1):
            world.plan(When("advance", 0, node=joiner.index), Crash(index))
        world.run(30.0, are_down(world.hosts[:2]))
        finish(world, run, ENDS_S)
        summary = node(joiner).runs[run].summary()
        assert (summary["reproducibility"], summary["since_step"]) == ("replay", 0)
        assert summary["skipped"] > 0


@pytest.mark.parametrize("version", [1, 3, 6])
def test_a_run_that_was_stopped_amid_the_updates_of_a_step_ends_with_the_same_weights(version: int) -> None:
    """It goes on from the version that the step began with: what was sampled is in no checkpoint."""
    world, run = mesh(2, pipeline=SEVERAL)
    reached = [False]

    def is_there() -> bool:
        reached[0] = any(advanced.head.step >= version for _, advanced in world.advanced)
        return reached[0]

    world.run(30.0, is_there)
    assert reached[0]
    world.stop(0, run)
    world.run(20.0)
    world.at(world.now, Crash(0, 1.0))
    world.at(world.now, Crash(1, 1.0))
    world.run(5.0)
    world.resume(0, run)
    assert finish(world, run, ENDS_S) == undisturbed_weights(SEVERAL)


class Saved(Sampled):
    """A watcher that counts who begins to write which version to its disk."""

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start) and isinstance(action.work, SaveWork):
            self.of[action.work.header.step, host.index] += 1


@pytest.mark.parametrize("seed", [0, 3, 6, 9, 11])
def test_two_write_a_checkpoint_however_many_updates_follow(seed: int) -> None:
    """All keep the version that a step began with until its last update, but two disks are enough for it, and for the
    last one: a node that is there early leaves it to those who come before it and are not there yet."""
    world, run = mesh(5, pipeline=replace(SEVERAL, checkpoint={"every": 1, "keep": 3}), seed=seed)
    saved = Saved()
    world.watch(saved)
    finish(world, run, ENDS_S)
    assert Counter(step for step, _ in saved.of) == {5: SAVERS, 9: SAVERS}


def test_manifests_of_a_step_name_the_same_outputs() -> None:
    """What was settled once is carried on as it is."""
    world, run = mesh(2, pipeline=SEVERAL)
    found: dict[int, set[tuple[str, Partition, ShardId]]] = {}

    def look() -> bool:
        for host in world.live():
            for number, step in node(host).runs[run].state.steps.items() if run in node(host).runs else ():
                for name in step.settled & step.seals.keys():
                    seal = step.seals[name]
                    if seal.kind == MANIFEST:
                        found[number] = {(r.task.stage, r.task.part, ref.id) for r in seal.entries for ref in r.shards}  # type: ignore[misc]
        return False

    world.run(6.0, look)
    assert found.keys() >= set(range(9))
    assert all(found[number] == found[0] for number in range(5))
    assert all(found[number] == found[5] for number in range(5, 9))


def test_books_of_a_step_do_not_grow_with_its_updates() -> None:
    """Each names all that the step sampled, once more: of those between its first and its last nobody needs any."""
    world, run = mesh(2, pipeline=with_updates(two_steps(), epochs=4, minibatches=4))
    limits, over = Limits(world, Steady(world)), ended(world, run)
    while not over():
        world.run(MEASURE_S, over)
        limits.inspect()
    finish(world, run, ENDS_S)
