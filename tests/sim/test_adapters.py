"""Versions that hold adapters alone: each names the base that the first one named, wherever it goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.simulator.faults import Crash, Join, PowerCut
from dflow_protocols.simulator.goals import begin_again, finish, node
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import living
from dflow_protocols.simulator.toy import (
    two_models,
    warm_then_two,
    with_adapters,
    with_async,
    with_kept_reference,
    with_reference,
)
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh

ADAPTERS = with_adapters(warm_then_two(every=1))


def with_base(pipeline: Pipeline) -> Pipeline:
    """The same with adapters, and what is sampled is scored by their base."""
    models = {**pipeline.models, "reference": pipeline.models["policy"]}
    adapted = with_adapters(pipeline)
    return replace(with_reference(adapted), models={**models, **adapted.models})


REFERENCES = {
    "frozen": with_base(warm_then_two()),
    "frozen, behind": with_base(with_async(warm_then_two(), 1)),
    "kept": with_kept_reference(with_adapters(warm_then_two()), 2),
}


def bases(world: World, run: RunId) -> set[tuple[str, ...]]:
    """Names of the bases in the versions that living nodes ended with."""
    own = [node(host).runs[run].state.versions.own for host in world.live()]
    return {tuple(name for name, _ in header.state if name.startswith("base:")) for header in own if header}


def test_each_model_has_its_own_base() -> None:
    """Two models that are trained in turn: an update of one leaves what is said of the other."""
    world, run = mesh(3, pipeline=with_adapters(two_models()))
    finish(world, run, ENDS_S)
    assert bases(world, run) == {("base:judge", "base:policy")}


@pytest.mark.parametrize("nodes", [2, 4])
def test_adapters_do_not_depend_on_how_many_nodes_train_them(nodes: int) -> None:
    """As whole weights do not."""
    alone, same = mesh(1, pipeline=ADAPTERS)
    world, run = mesh(nodes, pipeline=ADAPTERS)
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_comes_with_what_is_said_of_its_base(name: str) -> None:
    """Whoever scores holds its own base against that: the checker sees to it that it can."""
    world, run = mesh(3, pipeline=REFERENCES[name])
    world.at(world.now + 1.0, Crash(1, 3.0))
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_that_comes_without_its_base_is_noticed(name: str) -> None:
    """It would be scored by whatever base there is, and nothing would fail."""
    with living(MUTATIONS["a_reference_comes_without_what_is_said_of_its_base"]):
        world, run = mesh(2, pipeline=REFERENCES[name])
        with pytest.raises(Violation, match="are given, due are"):
            finish(world, run, ENDS_S)


def test_a_base_outlives_crashes_and_is_learnt_by_who_joins() -> None:
    """32 bytes that no update makes anew are copied on with each version, or a joiner would have no proof."""
    world, run = mesh(3, pipeline=ADAPTERS)
    world.at(world.now + 1.0, Crash(1))
    world.at(world.now + 1.2, Join(world.add((0, 2)).index))
    finish(world, run, ENDS_S)
    assert bases(world, run) == {("base:policy",)}


@pytest.mark.parametrize("after_s", [0.6, 1.5, 3.0])
def test_a_base_comes_back_from_disks_after_a_power_cut(after_s: float) -> None:
    """A checkpoint holds it beside its adapters."""
    alone, same = mesh(1, pipeline=ADAPTERS)
    world, run = mesh(3, pipeline=ADAPTERS)
    world.at(world.now + after_s, PowerCut(2.0, lost=(1,)))
    begin_again(world, run, ENDS_S)
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)
    assert bases(world, run) == {("base:policy",)}
