"""Whether a gradient is one of numbers, and what becomes of one that is not."""

from __future__ import annotations

import numpy as np
import pytest

from dflow_protocols.work import BlockWork
from dflowd.jobs.failures import UserError
from dflowd.training.accumulate import HostMemory
from dflowd.training.finite import judge

WORK = BlockWork(7, "learn", 0, 8, (), (), ())


@pytest.mark.parametrize(("value", "found"), [(3e38, True), (np.inf, False), (-np.inf, False), (np.nan, False)])
def test_numbers_that_are_large_are_numbers(value: float, found: bool) -> None:
    """The square of one that float32 holds may be one that it does not."""
    vector = np.ones(1000, np.float32)
    vector[[3, 997]] = value
    assert HostMemory(1000).is_finite(vector) == found


def test_a_gradient_that_is_left_out_has_the_same_bytes_whatever_was_in_it() -> None:
    """Not-a-numbers of many kinds would make other shards on other processors."""
    made = []
    for broken in (np.nan, -np.nan, np.inf):
        gradient = np.full(9, broken, np.float32)
        figures = judge(WORK, 5, {"on_nonfinite": "skip"}, {"loss_sum": 1.0}, gradient, HostMemory(len(gradient)))
        assert dict(figures) == {"nonfinite_leaves": 1.0, "nonfinite_leaf_min": 5.0}
        made.append(gradient.tobytes())
    assert len(set(made)) == 1
    assert np.isnan(np.frombuffer(made[0], np.float32)).tolist() == [True] + [False] * 8


def test_a_gradient_alone_is_enough_to_end_a_run() -> None:
    """A loss may be finite where its slope is not."""
    gradient = np.array([1, np.inf], np.float32)
    with pytest.raises(UserError, match="the gradient of leaf 5 at step 7 is not finite"):
        judge(WORK, 5, {}, {"loss_sum": 1.0}, gradient, HostMemory(len(gradient)))
