"""Long seals: cut into messages and put together again."""

from __future__ import annotations

import pytest

from dflow_protocols.names import MANIFEST
from dflow_protocols.run_state import long_seals
from dflow_protocols.run_state.long_seals import joined, parted
from dflow_protocols.steps.step import Step
from dflow_protocols.wire.books import Holding
from dflow_protocols.wire.steps import Seal, SealNames, SealPut
from tests.unit.protocols.books import RUN, SPEC, ZERO, finished_partition, who

ENTRIES = (*finished_partition(0), *finished_partition(1))
SEAL = Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, ENTRIES)
HOLDINGS = (Holding(tuple(range(len(SEAL.shards))), (who(1), who(2))),)
PUT = SealPut(RUN, SEAL, True, HOLDINGS, None, (who(3),))


def test_a_short_seal_is_one_message() -> None:
    assert parted(PUT) == ((), PUT)


def test_a_long_seal_is_the_same_once_all_its_records_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none before: what is acted on is what its id names."""
    monkeypatch.setattr(long_seals, "SEAL_A_MESSAGE", 2)
    monkeypatch.setattr(long_seals, "RECORDS_A_MESSAGE", 4)
    before, named = parted(PUT)
    assert isinstance(named, SealNames)
    assert [len(put.records) for put in before] == [4, len(ENTRIES) - 4]
    assert all(each.holders == tuple(sorted((who(1), who(2)))) for put in before for each in put.records)
    step = Step(0)
    for place, each in enumerate(each for put in before for each in put.records):
        assert joined(named, step) is None, f"{place} of them are here"
        step.add(each.record)
    put = joined(named, step)
    assert put is not None
    assert (put.seal, put.seal.id, put.onward) == (PUT.seal, PUT.seal.id, PUT.onward)
