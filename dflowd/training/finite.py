"""A leaf whose loss or gradient is no number: the run's end, or a fact of the step that leaves its update out.

Either way it is a function of the leaf, so every node finds the same. Where the update is left out the leaf's gradient
becomes one not-a-number in its first element and zeros behind it, whose sum has the same bytes wherever it is added up,
and whose norm tells every trainer to keep its parameters and moments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from dflow_protocols.metrics import NONFINITE_LEAF_MIN, NONFINITE_LEAVES
from dflow_protocols.work import BlockWork
from dflowd.jobs.failures import UserError

from .accumulate import Memory

V = TypeVar("V")


def judge(
    work: BlockWork, leaf: int, config: Mapping[str, Any], sums: Mapping[str, float], gradient: V, memory: Memory[V]
) -> Mapping[str, float]:
    """The leaf's figures, if they and its gradient are finite; else those of a leaf that is left out.

    `config`: the training stage's, of which `on_nonfinite` is read. `gradient`: [parameters], in `memory`. Raises
    UserError where `config` says `fail`.
    """
    broken = [name for name, value in sums.items() if not math.isfinite(value)]
    if not broken and memory.is_finite(gradient):
        return sums
    if config.get("on_nonfinite", "fail") == "fail":
        what = " and ".join(sorted(broken)) or "the gradient"
        raise UserError(f"{what} of leaf {leaf} at step {work.step} is not finite: the training diverged", work.stage)
    memory.mark(gradient)
    return {NONFINITE_LEAVES: 1.0, NONFINITE_LEAF_MIN: float(leaf)}
