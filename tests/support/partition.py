"""One stage on one partition, as an operator is given it, with no engine around it."""

from __future__ import annotations

from pathlib import Path

from dflow_protocols.pipeline import Pipeline
from dflowd.data.contract import Data
from dflowd.models.policy import Policy
from dflowd.operators.partition import Columns, Partition
from dflowd.workers.pool import Pool


def first_partition(
    pipeline: Pipeline,
    folder: Path,
    stage: str,
    groups: int,
    data: Data,
    *,
    known: dict[str, Columns] | None = None,
    policy: Policy | None = None,
    pool: Pool | None = None,
    step: int = 0,
) -> Partition:
    """Groups [0, groups) of a step. `known`: what was made of them before; `policy`, `pool`: None where the operator
    needs none."""

    def opened(name: str) -> Policy:
        assert policy is not None, "this needs no model"
        return policy

    workers = None if pool is None else lambda: pool
    made = {} if known is None else known
    return Partition(
        pipeline,
        folder,
        step,
        pipeline.stage(stage),
        0,
        groups,
        made,
        opened,
        lambda _: data,
        lambda: None,
        pool=workers,
    )
