"""Rollouts by the built-in operators and the user's own: each stage of a partition, from its columns to new ones."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch

from dflow_protocols.metrics import merge
from dflow_protocols.pipeline import Chain, Stage, partition_groups, plan
from dflow_protocols.pipeline.weighing import with_coefficients
from dflow_protocols.ranges import State
from dflow_protocols.work import ChainWork, Done, Made, needs_device
from dflowd.jobs.job import Job, put
from dflowd.models.description import Description
from dflowd.models.parameters import DTYPES
from dflowd.models.policy import Policy
from dflowd.operators.partition import Columns, Output, Partition, Sampling
from dflowd.operators.registry import OPERATORS, operate
from dflowd.shards import layout
from dflowd.slots.doing import Doing

from .opened import Opened
from .samples import samples_of


class Models(Protocol):
    """What an engine that samples in a way of its own gives to stages that sample."""

    def description(self, job: Job, name: str) -> Description: ...
    def sampling(self, job: Job, stage: Stage, state: State) -> Sampling: ...


class OperatorRollouts:
    """Rollouts (contract.py) with what is opened. `models`: of an engine that samples by itself."""

    def __init__(self, opened: Opened, models: Models | None = None) -> None:
        self._opened = opened
        self._models = models

    def chain(self, job: Job, work: ChainWork) -> Done:
        self._opened.enter(job)
        if needs_device(job.pipeline, work):
            self._opened.only(self._models_of(job, work))
        (chain,) = (c for c in plan(job.pipeline, work.step).chains if set(work.stages) <= set(c.stages))
        known: dict[str, Columns] = {name: layout.decode(job.shards.read(ref)) for name, ref in work.inputs}
        parts: list[tuple[str, list[Output], float]] = []
        for stage_id in work.stages:
            start = job.baton.seconds()
            stage = with_coefficients(job.pipeline.stage(stage_id), work.coefficients)
            job.board.write(Doing(stage_id, f"it did `{stage.op}`"))
            outputs = operate(self._partition(job, work, stage, chain, known), OPERATORS)
            known |= {f"{stage_id}.{output.name}": output.columns for output in outputs}
            parts.append((stage_id, outputs, job.baton.seconds() - start))
        refs = iter(put(job.shards, [layout.encode(o.columns) for _, outputs, _ in parts for o in outputs]))
        made = tuple(
            Made(
                stage_id,
                tuple((output.name, next(refs)) for output in outputs),
                merge(tuple(output.metrics.items()) for output in outputs),
                next((output.groups for output in outputs if output.groups), ()),
                seconds,
                note=next((output.note for output in outputs if output.note), ""),
            )
            for stage_id, outputs, seconds in parts
        )
        data = partial(self._opened.dataset, job)
        is_shown = work.partition == 0 and work.stages[-1] == chain.stages[-1]
        return Done(made, samples_of(job.pipeline, known, data) if is_shown else ())

    def _models_of(self, job: Job, work: ChainWork) -> set[tuple[str, torch.dtype]]:
        """What its stages pass through here, and in what."""
        models = {job.pipeline.stage(name).model for name in work.stages}
        return {(name, DTYPES[job.pipeline.models[name]["dtype"]]) for name in models if name is not None}

    def _partition(self, job: Job, work: ChainWork, stage: Stage, chain: Chain, known: dict[str, Columns]) -> Partition:
        first, end = partition_groups(chain, work.partition)
        models = self._models

        def policy(name: str) -> Policy:
            model = self._opened.scorer(job, name)
            return model if stage.operator.model == "tokenizer" else self._opened.loaded(job, model, work.state)

        return Partition(
            job.pipeline,
            job.code,
            job.pipeline.schedule.place(work.step).step,
            stage,
            first,
            end,
            known,
            policy,
            partial(self._opened.dataset, job),
            job.progress,
            job.board,
            partial(self._opened.pool, job),
            None if models is None else partial(models.description, job),
            None if models is None else models.sampling(job, stage, work.state),
            work.version,
        )
