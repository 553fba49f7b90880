"""Who comes late and copies slowly: the others keep what it copies, and what it takes from there to them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from dflow_protocols import work
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Crash, Join
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps, with_async, with_old_policy, with_sizes, with_updates
from dflow_protocols.simulator.watching.checker import Steady, state_of
from dflow_protocols.simulator.watching.limits import Limits
from dflow_protocols.simulator.world import World
from dflow_protocols.versions.catch_up import FOLLOWED_STEPS
from dflow_protocols.wire.steps import Head
from tests.support.simulated import ENDS_S, mesh

STEPS = 16
SLOW_BYTES_S = 1e6  # a state takes nine seconds, of which a step takes two; a gradient three
SLOWER_BYTES_S = 6e5  # the others are at their seventh step when the state is here
BEHIND_BYTES_S = 3e5  # a gradient takes longer than a step
SILENT_S = 1.5  # more than a holder is waited for
TOO_SLOW_BYTES_S = 2e4  # a state takes longer than the run


def joined(bytes_per_s: float, steps: int = STEPS) -> tuple[World, RunId, Host]:
    """Two that are at their third step, and one that has just come."""
    world, run = mesh(2, pipeline=replace(two_steps(), steps=steps), steals=False)
    joiner = world.add((0,))
    world.network.narrow_to(joiner.place, bytes_per_s)
    world.at(world.now + 3.0, Join(joiner.index))
    world.run(3.1)
    return world, run, joiner


def pins(world: World, run: RunId) -> list[Head]:
    """What the first node is asked to keep."""
    state = state_of(world.hosts[0], run)
    return [] if state is None else list(state.versions.pins.values())


@pytest.mark.parametrize("bytes_per_s", [SLOW_BYTES_S, SLOWER_BYTES_S])
def test_who_copies_slowly_arrives_and_becomes_a_trainer(bytes_per_s: float) -> None:
    """Each copy that was begun again took longer than the others needed to free what it copied; and a pin that was gone
    for one message, between the copy and what follows, cost all that had been kept."""
    world, run, joiner = joined(bytes_per_s, 2 * STEPS)  # it comes nearer by a step in three

    def trains() -> bool:
        state = state_of(world.hosts[0], run)
        rosters = [step.roster for step in state.steps.values()] if state is not None else []
        return any(roster is not None and joiner.id in roster.trainers for roster in rosters)

    world.run(60.0, trains)
    assert trains()
    assert joiner.process is not None
    moments = [count for count in joiner.process.bulk.fetched_bytes.values() if count > 1.5 * PARAMETER_BYTES]
    assert len(moments) == 1  # of one version; what followed it made of gradients
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("victim", [0, 1])
def test_who_copies_over_a_slow_link_holds_up_no_seal(victim: int) -> None:
    """A member that died for a moment is of the rosters while it copies for nine seconds, in which the others make five
    updates a step: whenever it comes first in the succession they would wait for it. Not of the two that are dealt the
    first slices of the gradient in every step: for these all wait at each update over such a link, whoever seals.
    """
    pipeline = with_async(with_old_policy(with_updates(with_sizes(two_steps(), 3, 8, 4), 1, 5)), 1)
    world, run = mesh(4, pipeline=pipeline, slots=(1, 2))
    world.network.narrow_to(world.hosts[victim].place, SLOW_BYTES_S)
    world.at(world.now + 2.0, Crash(victim, 0.5))
    began = world.now
    world.expect(ENDS_S, ended(world, run), "it ends")
    assert world.now - began < 22.0, "it takes 13 to 17 seconds, or 29 where each seal waits for its turn"


def test_who_could_never_follow_is_waited_for_no_longer_than_a_bound() -> None:
    """Its pin would keep a version and all gradients since until the run ends."""
    world, run, _ = joined(TOO_SLOW_BYTES_S)
    state = state_of(world.hosts[0], run)
    assert state is not None
    most = 0
    for _ in range(400):
        world.run(0.1)
        if not state.is_active:
            break
        assert len(state.versions.held) <= 5
        most = max(most, state.committed_step - state.freed_before)
    assert 4 <= most <= FOLLOWED_STEPS


@pytest.mark.parametrize("bytes_per_s", [BEHIND_BYTES_S, TOO_SLOW_BYTES_S])
def test_no_tables_grow_with_the_time_that_a_copy_takes(bytes_per_s: float) -> None:
    """Of who copies, or goes on from what it copied and falls back, nothing is committed that would free its books."""
    world, run, joiner = joined(bytes_per_s, steps=25)
    limits = Limits(world, Steady(world))
    state = state_of(joiner, run)
    assert state is not None
    while state.is_active:
        world.run(2.0)
        limits.inspect()


@pytest.mark.parametrize("seconds", [2.0, 8.0, 12.0])
def test_what_is_kept_for_a_late_node_goes_with_it(seconds: float) -> None:
    """It dies while it copies, or while it follows; nothing of its pin is left."""
    world, run, joiner = joined(SLOW_BYTES_S)
    world.run(seconds)
    world.at(world.now, Crash(joiner.index))
    world.run(8.0)
    assert pins(world, run) == []
    state = state_of(world.hosts[0], run)
    assert state is not None
    assert not state.is_active or state.freed_before >= state.committed_step - 2
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("timing", ["lan", "wan"])
@pytest.mark.parametrize("at_s", [0.7, 1.3])
def test_who_serves_nothing_for_a_moment_costs_about_that_moment(
    monkeypatch: pytest.MonkeyPatch, timing: str, at_s: float
) -> None:
    """Its lane stands still while its node speaks, as on a host that is short of memory: whoever asked it for a shard
    took it for a holder of nothing, and what it alone had was not copied, nor made again, before doubts had ended: a
    silence of a second and a half cost two minutes with the times of a WAN."""
    monkeypatch.setattr(work, "MOST_SHORT_BYTES", 0)  # or second copies come along with their records
    times: Timing = getattr(Timing, timing)()
    world = World(partial(spawn, timing=times), nodes=5, seeds=tuple(range(5)))
    world.run(times.stable_s + 5.0)
    run, began = world.submit(0, with_sizes(two_steps(), 4, 12, 8)), world.now
    health = world.hosts[1].health
    world.after(at_s, lambda: health.impair("mute"))
    world.after(at_s + SILENT_S, lambda: health.handicaps.discard("mute"))
    world.expect(ENDS_S, ended(world, run), "it ends")
    assert world.now - began < 7.8 + 2 * SILENT_S, "undisturbed it takes up to 7.8 seconds"
