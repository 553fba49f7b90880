"""Weights of a divergence that follow it: what a step goes by was settled by the step before, and is in the version."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Advanced
from dflow_protocols.names import UPDATE, SealId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.drawn.watch import Watch
from dflow_protocols.simulator.faults import Crash
from dflow_protocols.simulator.goals import finish, node
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import living
from dflow_protocols.simulator.toy import several_updates, two_steps, with_adaptive_kl, with_sizes
from dflow_protocols.simulator.watching.checker import Steady
from dflow_protocols.simulator.watching.runs.adaptation import Adaptation
from dflow_protocols.simulator.watching.runs.purity import Purity
from dflow_protocols.wire.steps import Seal
from tests.support.simulated import ENDS_S, mesh

ADAPTIVE = with_adaptive_kl(with_sizes(two_steps(), 4, 3, 4))
SEVERAL = with_adaptive_kl(several_updates())


@pytest.mark.parametrize("pipeline", [ADAPTIVE, SEVERAL], ids=["one update a step", "several"])
def test_weights_move_alike_whoever_makes_a_version(pipeline: Pipeline) -> None:
    """The checker holds each version's weights against its manifest; the parameters are those of one node alone, also
    where one dies in between."""
    alone, same = mesh(1, pipeline=pipeline)
    due = finish(alone, same, ENDS_S)
    for victim in range(3):
        world, run = mesh(3, pipeline=pipeline)
        Watch(world, (Adaptation, Purity))
        world.at(world.now + 1.0 + victim, Crash(victim, 1.0))
        assert finish(world, run, ENDS_S) == due


def test_weights_that_follow_a_part_of_the_manifest_are_noticed() -> None:
    """Nodes that all make the same mistake agree with each other, so the checker works it out for itself."""
    with living(MUTATIONS["weights_follow_half_of_the_step"]):
        world, run = mesh(2, pipeline=ADAPTIVE)
        Watch(world, (Adaptation,))
        with pytest.raises(Violation, match="has the weights") as caught:
            finish(world, run, ENDS_S)
    assert caught.value.invariant == "weights_follow"


def test_of_a_version_that_came_without_its_manifest_nothing_is_worked_out() -> None:
    """A header brings the seal of its update along, and not what that was made of."""
    world, run = mesh(1, pipeline=ADAPTIVE)
    (host,) = world.hosts
    world.expect(ENDS_S, lambda: any(made.head.step == 1 for _, made in world.advanced), "it makes a version")
    state = node(host).runs[run].state
    own, step = state.versions.own, state.step(0)
    assert own is not None
    copied = Advanced(run, own.head, True, {})
    adaptation = Adaptation(world, Steady(world)).sees[Advanced]
    adaptation(host, copied)
    del step.seals[SealId(step.seals[SealId(own.seal)].previous)]
    adaptation(host, copied)


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_who_comes_late_goes_by_the_weights_of_the_version_that_it_copies(noise: frozenset[type]) -> None:
    """A node that was gone for a step has not seen what the weights follow from; they come with the version."""
    for victim in range(3):
        world, run = mesh(3, pipeline=ADAPTIVE, noise=noise)
        Watch(world, (Adaptation, Purity))
        world.at(world.now + 1.5, Crash(victim, 6.0))
        finish(world, run, ENDS_S)


def test_who_alone_knows_an_update_and_not_its_manifest_makes_one_again() -> None:
    """All who knew what a step was trained on may die once it is done, if nothing was: its update needs no slices, and
    a node that waits for the manifest would do so for ever."""
    world, run = mesh(1, pipeline=ADAPTIVE)
    (host,) = world.hosts
    world.expect(ENDS_S, lambda: bool(host.calls), "it works")
    state = node(host).runs[run].state
    world.expect(ENDS_S, lambda: state.versions.own is not None, "it begins")
    own = state.versions.own
    assert own is not None
    gone = SealId("0" * 64)
    update = Seal(state.spec, 0, own.id, gone, UPDATE, 0, 0, ())
    state.step(0).keep(update)
    state.step(0).settled.add(update.id)
    finish(world, run, ENDS_S)
