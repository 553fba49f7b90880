"""Nodes with little room: what is put off or given up comes about later, and nothing waits for ever."""

from __future__ import annotations

import pytest

from dflow_protocols.names import RunId, ShardId, ShardRef
from dflow_protocols.shards.space import STARVATION_S, AdmissionQueue, Place, latest_after
from dflow_protocols.simulator.faults import Pause
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES
from dflow_protocols.simulator.model.store import Store
from dflow_protocols.simulator.model.work import NOISY
from dflow_protocols.simulator.toy import two_steps
from tests.support.simulated import ENDS_S, mesh

FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


@pytest.mark.parametrize(("nodes", "room"), [(2, 9), (3, 10)])
def test_two_runs_in_the_room_of_little_more_than_one_both_end_though_a_node_lags(nodes: int, room: int) -> None:
    """Each run alone takes up to 6 times its parameters on a node, both together 12; no disk is behind it."""
    shed = 0
    for seed in range(3):
        world, first = mesh(nodes, noise=NOISY, seed=seed)
        for host in world.hosts:
            host.store.limit_bytes = room * PARAMETER_BYTES
        second = world.submit(nodes - 1, two_steps(), nonce="another")
        world.at(world.now + 1.0, Pause(8.0, nodes - 1))
        world.run(10.0)
        finish(world, first, ENDS_S)
        finish(world, second, ENDS_S)
        assert max(host.store.peak_bytes for host in world.hosts) <= room * PARAMETER_BYTES
        shed += sum(len(host.store.shed) for host in world.hosts)
    assert shed, "room was never short: the test shows nothing"


def test_the_order_of_places_is_that_of_runs_and_then_of_steps() -> None:
    """The same on every node: else each would make room for the run that the other one has put off."""
    places = [Place(SECOND, 0), Place(FIRST, 7), Place(FIRST, 2)]
    assert sorted(places) == [Place(FIRST, 2), Place(FIRST, 7), Place(SECOND, 0)]
    found = [(place, index) for index, place in enumerate(places)]
    assert latest_after(Place(FIRST, 2), found) == 0
    assert latest_after(Place(FIRST, 7), found) == 0
    assert latest_after(Place(SECOND, 0), found) is None


def test_who_comes_first_is_waited_for_but_not_for_ever() -> None:
    """It may be dead or cancelled by the time that there is room."""
    admission = AdmissionQueue()
    admission.refuse(0.0, Place(FIRST, 3), [Place(FIRST, 9)])
    assert not admission.enter(1.0, Place(FIRST, 4))
    assert admission.enter(1.0, Place(FIRST, 3))
    admission.took(Place(FIRST, 3))
    assert admission.enter(1.0, Place(FIRST, 4))  # the first one had its turn
    admission.refuse(2.0, Place(FIRST, 3), [Place(SECOND, 0)])
    assert not admission.enter(2.0 + STARVATION_S / 2, Place(SECOND, 0))
    assert admission.enter(2.0 + STARVATION_S, Place(SECOND, 0))


def test_who_asks_again_and_again_does_not_hold_up_those_for_whose_end_it_waits() -> None:
    """The state of a later run does not give way: it has to end, and cannot while it may not have the rest."""
    admission, served = AdmissionQueue(), 0
    for tick in range(200):
        now = tick / 4
        assert admission.enter(now, Place(FIRST, 3))
        admission.refuse(now, Place(FIRST, 3), [Place(SECOND, 0)])
        served += admission.enter(now, Place(SECOND, 0))
    assert 50 <= served <= 150


def test_who_is_refused_by_what_comes_before_it_keeps_nobody_waiting() -> None:
    """A run that cannot go on must not hold up the others."""
    admission = AdmissionQueue()
    admission.refuse(0.0, Place(FIRST, 3), [Place(FIRST, 3), Place(FIRST, 1)])
    assert admission.enter(0.0, Place(SECOND, 0))
    assert admission.freed()
    assert not admission.freed()


def test_a_pretended_store_sheds_as_the_real_one() -> None:
    """States and what works read stay; of the rest the latest goes."""
    shed: list[tuple[RunId, ShardId]] = []
    store = Store(limit_bytes=400, on_shed=lambda run, shard: shed.append((run, shard)))
    refs = [ShardRef(ShardId(str(digit) * 64), 100) for digit in range(6)]
    assert store.take(0.0, Place(FIRST, 5), refs[0], True, ())
    for index, step in ((1, 5), (2, 6), (3, 7)):
        assert store.take(0.0, Place(FIRST, step), refs[index], False, ())
    assert store.take(0.0, Place(FIRST, 4), refs[4], False, {refs[3].id})
    assert shed == [(FIRST, refs[2].id)]
    assert store.take(0.0, Place(FIRST, 4), refs[5], False, {refs[3].id})
    assert shed[1:] == [(FIRST, refs[1].id)]
    assert not store.take(0.0, Place(FIRST, 4), refs[2], False, {refs[3].id})
    assert store.drop(FIRST, refs[5].id)
    assert store.held_bytes == 300
