"""Each stage's share of a step's figures, where several stages of one kind have figures of their own.

Rewards are the plain case: `reward_mean` is of what training goes by, `reward_mean/STAGE` of each stage that rewards.
"""

from __future__ import annotations

from ..metrics import JUDGE, Sums
from ..pipeline.grammar.signatures import operator_of
from ..pipeline.spec import Pipeline
from ..pipeline.weighing import reward_stages


def shares(pipeline: Pipeline, stage: str, sums: Sums) -> Sums:
    """A record's sums by the names that a step merges them under; `stage`: that made it.

    One stage of its kind: as they are. Several: `NAME/STAGE` as well. Several that reward, which all see the same
    samples: `NAME/STAGE` only; the plain sums are the advantage's. What their judges were asked adds up all the same.
    """
    named = tuple((f"{name}/{stage}", value) for name, value in sums)
    rewarding = reward_stages(pipeline)
    if stage in rewarding and len(rewarding) > 1:
        return (*((name, value) for name, value in sums if name in JUDGE), *named)
    ops = {other.id: other.op for other in pipeline.stages}
    op = ops.get(stage)
    is_one_of_several = op is not None and operator_of(op).counts and list(ops.values()).count(op) > 1
    return (*sums, *named) if is_one_of_several else sums
