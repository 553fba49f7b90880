"""What an engine has open of the run that it works for: models and data sets, and none of another run's.

Parameters are loaded by shard before they are used, so what is kept here saves time and decides nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.ranges import State, shards_of
from dflowd.data.order import DataSet
from dflowd.jobs.counter_random import number
from dflowd.jobs.job import Job
from dflowd.models.parameters import DTYPES
from dflowd.models.policy import Policy
from dflowd.models.proof import require_finite, require_own_numbers
from dflowd.operators.user_code import check_files, forget_user_code


class Opened:
    """Models on one device, and data sets, of one run at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._run: tuple[str, Path] | None = None
        self._policies: dict[tuple[str, torch.dtype], Policy] = {}
        self._data: dict[str, DataSet] = {}

    def enter(self, job: Job) -> None:
        """Forget another run's models, data and code. Raises HostError where this host has other files."""
        run = (str(job.pipeline.id), job.base)
        if self._run != run:
            self._run = None
            self._policies.clear()
            self._data.clear()
            forget_user_code()
            with job.opaque():
                check_files(job.pipeline, job.base)
            self._run = run

    def forget_models(self) -> None:
        """What is opened next has its first weights."""
        self._policies.clear()

    def policy(self, job: Job, name: str, dtype: torch.dtype = torch.float32) -> Policy:
        """A model that computes in `dtype`, with whatever parameters it has now. Raises UserError, and HostError."""
        if (name, dtype) not in self._policies:
            config = job.pipeline.models[name]
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it loaded model `{name}`")):
                policy = Policy(name, config, job.base, first_seed(job.pipeline, name), self._device)
                check_files(job.pipeline, job.base, f"models.{name}.")
            require_own_numbers(policy, job.progress)
            if dtype != torch.float32:
                policy.parameters.compute_in(dtype)
                require_finite(policy, dtype)
            self._policies[name, dtype] = policy
        return self._policies[name, dtype]

    def scorer(self, job: Job, name: str) -> Policy:
        """The model that samples and scores: in the `dtype` that the spec gives it. Raises as `policy`."""
        return self.policy(job, name, DTYPES[job.pipeline.models[name]["dtype"]])

    def loaded(self, job: Job, policy: Policy, state: State) -> Policy:
        """The model with the parameters of `state`; one that is not trained has those it started with."""
        refs = shards_of(state, f"params:{policy.name}")
        if refs:
            policy.parameters.load(tuple(ref.id for ref in refs), job.shards.read(*refs))
        return policy

    def dataset(self, job: Job, name: str) -> DataSet:
        """A data set that tells the job its progress. Raises UserError, and HostError."""
        if name not in self._data:
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it read data `{name}`")):
                data = DataSet(name, job.pipeline.data[name], job.base, job.pipeline.seed)
                check_files(job.pipeline, job.base, f"data.{name}.")
            self._data[name] = data
        self._data[name].progress = job.progress
        return self._data[name]

    def unload(self) -> None:
        """The call is over: no parameter is a view into its shards any more."""
        for policy in self._policies.values():
            policy.parameters.unload()


def first_seed(pipeline: Pipeline, model: str) -> int:
    """What a model's first weights are drawn from. Models described alike start alike, whatever they compute in, so
    that a reference is where its policy came from."""
    described = {**pipeline.models[model], "dtype": "float32"}
    return number("init", str(pipeline.id), json.dumps(described, sort_keys=True)) >> 1
