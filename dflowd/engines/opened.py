"""What an engine has open of the run that it works for: models and data sets, and none of another run's.

Parameters are loaded by shard before they are used, so what is kept here saves time and decides nothing.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.entries.mixing import held_out_count, sets_in
from dflow_protocols.pipeline.entries.settings import DROP, data_of
from dflow_protocols.ranges import State, shards_of
from dflowd.data.contract import Data
from dflowd.data.folder import check_files
from dflowd.data.mixture import Mixture
from dflowd.data.order import DataSet
from dflowd.data.prompts import Wording, prompt_tokens
from dflowd.data.sources import Entry
from dflowd.jobs.counter_random import number
from dflowd.jobs.failures import HostError
from dflowd.jobs.job import Job
from dflowd.models.description import Description
from dflowd.models.parameters import DTYPES, HOST
from dflowd.models.policy import Policy
from dflowd.models.proof import can_read_in_line, require_finite, require_own_numbers
from dflowd.models.served.frozen import Frozen
from dflowd.workers.pool import Pool
from dflowd.workers.user_code import forget_user_code

Model = TypeVar("Model", Policy, Frozen)


class Opened:
    """Models on one device, and data sets, of one run at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._run: tuple[str, Path, Path] | None = None
        self._policies: dict[tuple[str, torch.dtype], Policy] = {}
        self._away: set[int] = set()  # models, by their identity, that have left the device
        self._descriptions: dict[str, Description] = {}
        self._frozen: dict[str, Frozen] = {}
        self._data: dict[str, DataSet] = {}
        self._pool: Pool | None = None

    def enter(self, job: Job) -> None:
        """Forget another run's models, data and code. Raises HostError where this host has other files."""
        run = (str(job.pipeline.id), job.base, job.code)
        if self._run != run:
            self._run = None
            self.forget_models()
            self._descriptions.clear()
            self._frozen.clear()
            self._data.clear()
            forget_user_code()
            if self._pool is not None:
                self._pool.close()
                self._pool = None
            with job.opaque():
                check_files(job.pipeline, job.base)
            self._run = run

    def forget_models(self) -> None:
        """What is opened next has its first weights."""
        self._policies.clear()
        self._away.clear()

    def only(self, wanted: Collection[tuple[str, torch.dtype]]) -> None:
        """Have the device's memory for these models. Others give theirs back, until they are asked for again."""
        if self._device == HOST:
            return
        kept = {id(self._policies[key].model) for key in wanted if key in self._policies} | self._away
        gone = {id(policy.model): policy for policy in self._policies.values() if id(policy.model) not in kept}
        for policy in gone.values():
            policy.leave()
        self._away |= gone.keys()
        if gone and self._device.type == "cuda":
            torch.cuda.empty_cache()

    def policy(self, job: Job, name: str, dtype: torch.dtype = torch.float32) -> Policy:
        """A model that computes in `dtype`, with whatever parameters it has now. Raises UserError, and HostError."""
        if (name, dtype) not in self._policies and (adapted := job.pipeline.is_base_of(name)) is not None:
            self._policies[name, dtype] = self.policy(job, adapted, dtype).without_adapters(name)
        if (name, dtype) not in self._policies:
            config = job.pipeline.described(name)
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it loaded model `{name}`")):
                policy = Policy(name, config, job.base, first_seed(job.pipeline, name))
                check_files(job.pipeline, job.base, f"models.{name}.")
            self._prove(job, policy, dtype)
            self._policies[name, dtype] = policy
        found = self._policies[name, dtype]
        if id(found.model) in self._away:
            self._away.remove(id(found.model))
            found.come_back()
        return found

    def _prove(self, job: Job, policy: Policy, dtype: torch.dtype) -> None:
        """Bring a model to where and what it computes in, and refuse one whose numbers would not be its own. It is held
        against them in float32; if it computes in less that is done on the host, so that a device has it in `dtype`
        alone."""
        is_of_versions = policy.name in job.pipeline.trainable or policy.name in job.pipeline.kept
        place = (dtype, self._device, is_of_versions)
        if dtype == torch.float32:
            policy.compute_in(*place)
        with _cores_of_a_gpus_host():
            require_own_numbers(policy, job.progress)
            if dtype != torch.float32 or self._device != HOST:
                policy.lay_out(in_line=can_read_in_line(policy, job.progress))
        if dtype != torch.float32:
            policy.compute_in(*place)
            require_finite(policy, dtype)

    def scorer(self, job: Job, name: str) -> Policy:
        """The model that samples and scores: in the `dtype` that the spec gives it. Raises as `policy`."""
        return self.policy(job, name, DTYPES[job.pipeline.models[name]["dtype"]])

    def description(self, job: Job, name: str) -> Description:
        """A model without its parameters. Raises UserError, and HostError."""
        if name not in self._descriptions:
            with job.opaque():
                description = Description(name, job.pipeline.described(name), job.base)
                check_files(job.pipeline, job.base, f"models.{name}.")
            self._descriptions[name] = description
        return self._descriptions[name]

    def frozen(self, job: Job, name: str) -> Frozen:
        """A model of which only the weights are wanted; one that is trained has adapters. Raises as `policy`."""
        if name not in self._frozen:
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it read model `{name}`")):
                self._frozen[name] = Frozen(self.description(job, name), first_seed(job.pipeline, name), self._device)
        return self._frozen[name]

    def loaded(self, job: Job, model: Model, state: State) -> Model:
        """The model with the parameters of `state`; one that is not trained has those it started with. Raises HostError
        where the base that it stands on is not the run's."""
        for ref in shards_of(state, f"base:{model.name}"):
            _require_base(model, bytes(job.shards.read(ref)))
        refs = shards_of(state, f"params:{model.name}")
        if refs:
            model.parameters.load(tuple(ref.id for ref in refs), job.shards.read(*refs))
        return model

    def dataset(self, job: Job, name: str) -> Data:
        """A data set, or a mixture of them, that tells the job its progress. Raises UserError, and HostError."""
        data = job.pipeline.data
        if "mix" not in data[name]:
            return self._of_source(job, name)
        sets = {each: self._of_source(job, each) for each in sets_in(data, name)}
        held_out = {each: held_out_count(data, each) or 0 for each in sets}
        return Mixture(name, data[name]["mix"], sets, held_out, job.pipeline.seed)

    def _of_source(self, job: Job, name: str) -> DataSet:
        if name not in self._data:
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it read data `{name}`")):
                measure = self._measure(job, name)
                data = DataSet(name, job.pipeline.data[name], job.base, job.pipeline.seed, measure)
                check_files(job.pipeline, job.base, f"data.{name}.")
            self._data[name] = data
        self._data[name].progress = job.progress
        return self._data[name]

    def _measure(self, job: Job, name: str) -> Callable[[Entry], int] | None:
        """Tokens of a prompt of a data set that drops long ones, for the model that reads it."""
        config = job.pipeline.data[name]
        if config.get("long_prompts") != DROP:
            return None
        stages = [stage for stage in job.pipeline.stages if stage.model is not None]
        readers = (stage for stage in stages if name in sets_in(job.pipeline.data, data_of(stage.config)))
        tokenizer, wording = self.description(job, str(next(readers).model)).tokenizer, Wording.of(config)
        return lambda entry: len(prompt_tokens(tokenizer, entry, wording))

    def pool(self, job: Job) -> Pool:
        """The workers that run the user's code."""
        if self._pool is None:
            self._pool = Pool(job.code, job.limits, job.baton.resting)
        return self._pool

    def unload(self) -> None:
        """The call is over: no parameter is a view into its shards any more."""
        models: list[Policy | Frozen] = [*self._policies.values(), *self._frozen.values()]
        for model in models:
            model.parameters.unload()


@contextmanager
def _cores_of_a_gpus_host() -> Iterator[None]:
    """They would wait. What is computed meanwhile is looked at and not kept, so that other bits do no harm."""
    before = torch.get_num_threads()
    if torch.cuda.is_available():
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def first_seed(pipeline: Pipeline, model: str) -> int:
    """What a model's first weights are drawn from. Models described alike start alike, whatever they compute in, so
    that a reference is where its policy came from, also where the policy has adapters."""
    return number("init", str(pipeline.id), json.dumps(pipeline.own_weights(model), sort_keys=True)) >> 1


def _require_base(model: Policy | Frozen, meant: bytes) -> None:
    """Raises HostError where version 0's base is of other weights than this host has: adapters would not belong to it,
    and a reference that is the base would say other things than elsewhere."""
    if model.base_id != meant:
        raise HostError(
            f"host {socket.gethostname()}: models.{model.name}: its base (hash {model.base_id.hex()[:8]}) is not the "
            f"one that the run began with ({meant.hex()[:8]}), so it would compute other numbers than other hosts; "
            "install the torch and transformers that they have"
        )
