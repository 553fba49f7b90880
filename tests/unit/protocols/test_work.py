"""What a work asks of its host."""

from __future__ import annotations

import pytest

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import BlockWork, ChainWork, SumWork, needs_device
from tests.unit.protocols.written_specs import example


@pytest.mark.parametrize(
    ("stages", "needed"), [(("roll",), True), (("score", "adv"), False), (("score", "roll"), True)]
)
def test_a_chain_needs_a_device_where_it_passes_through_a_model(stages: tuple[str, ...], needed: bool) -> None:
    """A reward must not put a sampler to sleep; a score by a reference must."""
    assert needs_device(Pipeline.from_dict(example()), ChainWork(60, stages, 0, ())) == needed


def test_gradients_need_one_and_sums_of_them_do_not() -> None:
    """Sums are shards alone."""
    pipeline = Pipeline.from_dict(example())
    assert needs_device(pipeline, BlockWork(60, "learn", 0, 1, (), (), ()))
    assert not needs_device(pipeline, SumWork(60, "learn", 0, 2, (), ()))
