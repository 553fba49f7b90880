"""Symbolic shards: what has one id, and what has not."""

from __future__ import annotations

from dflow_protocols.names import ShardId
from dflow_protocols.simulator.model.provenance import ALIKE, Ledger, PartitionOutput, Weights

SPEC, PARAMS = "e" * 16, (ShardId("c" * 64),)


def output(partition: int, salt: int = 0) -> PartitionOutput:
    return PartitionOutput(SPEC, 0, "roll", "rollout", partition, PARAMS, (), (), salt)


def weights(part: int) -> Weights:
    return Weights("params:policy", part, 100, SPEC, 0, "learn", (), (), (), 0)


def test_the_same_work_has_the_same_id_and_a_noisy_one_never_has() -> None:
    """As bytes have that are hashed: a pure engine gives the same ones wherever it runs."""
    ledger = Ledger()
    assert ledger.enter(output(1)) == ledger.enter(output(1))
    ids = [ledger.enter(each).id for each in (output(1), output(2), output(1, salt=1), output(1, salt=2))]
    assert len(set(ids)) == 4


def test_things_that_are_alike_share_an_id_and_each_is_found_under_it() -> None:
    """Zeros are zeros, whatever they were made for; a checker must not take one for another."""
    ledger = Ledger(ALIKE)
    first, second = ledger.enter(output(1)), ledger.enter(output(2))
    assert first.id == second.id
    assert ledger.partition_output(first.id, 1).partition == 1
    assert ledger.partition_output(first.id, 2).partition == 2
    shards = [ledger.enter(weights(part)) for part in range(2)]
    assert shards[0] == shards[1]
    assert [made.part for part in range(2) for made in ledger.weights(shards[0].id, "params:policy", part)] == [0, 1]
