"""Sealing at one node: a seal is put to the replicas, announced once they keep it, and what it needs gets copies."""

from __future__ import annotations

from dflow_protocols.controllers.rosters import Rosters
from dflow_protocols.controllers.sealer import Sealer
from dflow_protocols.events import Fetch
from dflow_protocols.names import MANIFEST, UPDATE
from dflow_protocols.simulator.toy import TOY_PARTITIONS
from dflow_protocols.wire.steps import RecordPut, SealPut
from tests.unit.protocols.books import RUN, SUSPICION_S, ZERO, finished_partition, learn
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh


def sealer(run: ARun) -> Sealer:
    return Sealer(run.state, Rosters(run.state, run.outbox), run.outbox)


def finish_all(run: ARun, holders: tuple[int, ...] = (1, 2)) -> None:
    for partition in range(TOY_PARTITIONS):
        learn(run.view(), *finished_partition(partition), holders=holders)


def when_due(run: ARun) -> float:
    """When it is surely this node's turn, whatever its place in the succession."""
    return 3 * SUSPICION_S


def test_a_manifest_is_put_to_the_replicas_and_announced_when_they_keep_it() -> None:
    """What all act on must outlive any one of them."""
    run = ARun()
    finish_all(run)
    at_node = sealer(run)
    for now in (0.0, when_due(run), 2 * when_due(run)):
        at_node.settle(run.view(now), ALL, MANIFEST, ZERO.id, run.out)
    (seal,) = run.state.step(0).seals.values()
    put = [message for _, message in run.told(SealPut) if isinstance(message, SealPut)]
    assert put
    assert all(message.seal == seal and not message.settled for message in put)
    run.out.clear()
    run.state.step(0).acks[seal.id].update(run.view().replicas)
    assert at_node.settle(run.view(2 * when_due(run)), ALL, MANIFEST, ZERO.id, run.out) == seal
    assert [message.settled for _, message in run.told(SealPut) if isinstance(message, SealPut)] == [True, True]


def test_nothing_is_sealed_while_a_partition_is_missing() -> None:
    """Weights are a function of all of them."""
    run = ARun()
    for partition in range(TOY_PARTITIONS - 1):
        learn(run.view(), *finished_partition(partition))
    assert sealer(run).settle(run.view(when_due(run)), ALL, MANIFEST, ZERO.id, run.out) is None
    assert run.out == []


def test_an_update_is_not_looked_for_before_there_is_a_manifest() -> None:
    """It reads what the manifest fixes."""
    run = ARun()
    finish_all(run)
    assert sealer(run).settle(run.view(when_due(run)), ALL, UPDATE, None, run.out) is None
    assert run.out == []


def test_a_replica_becomes_the_second_holder_of_what_has_one() -> None:
    """A rollout that dies with its host is made again by somebody: minutes, for a copy that takes none."""
    run = ARun()
    first, *_ = finished_partition(0)
    run.state.step(0).add(first)
    maker = next(node for node in run.view().replicas if node != run.state.me)
    run.state.holdings.credit(maker, [ref.id for ref in first.shards])
    at_node = sealer(run)
    for now in (0.0, 2 * SUSPICION_S):
        at_node.back_up(run.view(now), run.out)
    assert [action.ref for action in run.out if isinstance(action, Fetch)] == list(first.shards)
    for ref in first.shards:
        run.state.holdings.keep(ref)
    run.out.clear()
    at_node.back_up(run.view(3 * SUSPICION_S), run.out)
    assert {message for _, message in run.told(RecordPut)} == {RecordPut(RUN, (first,))}


def test_where_nobody_else_lives_there_is_nothing_to_copy() -> None:
    """One holder is all there can be."""
    run = ARun()
    first, *_ = finished_partition(0)
    learn(run.view(), first, holders=(1,))
    sealer(run).back_up(run.view(9.0, mesh(1)), run.out)
    assert run.out == []
