"""The engine of real models: transformers on the CPU or one GPU.

It keeps models and data sets of the run it works for; parameters are loaded by shard before they are used, so it is
right from the shards alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from dflow_protocols.metrics import merge
from dflow_protocols.names import ShardRef
from dflow_protocols.pipeline import Chain, Pipeline, Stage, partition_groups, plan
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    InitWork,
    LeafGroups,
    Made,
    SaveWork,
    SliceWork,
    State,
)
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.operators.advantage import advantage
from dflowd.operators.custom import custom
from dflowd.operators.evaluate import evaluate
from dflowd.operators.generate import generate
from dflowd.operators.logprob import logprob
from dflowd.operators.partition import Columns, Output, Partition
from dflowd.operators.reward import reward
from dflowd.operators.sft import sft
from dflowd.operators.user_code import check_files, forget_user_code
from dflowd.shards import layout
from dflowd.training import checkpoint
from dflowd.training.accumulate import BlockStack
from dflowd.training.leaf import LeafData, Objective, Sums, add_gradient
from dflowd.training.update import apply_slices, reduce_slice

from .contract import Job, put
from .counter_random import number
from .exactness import numerics_class, settle
from .policy import Policy
from .specimens import specimens

OPERATORS: dict[str, Callable[[Partition], Output]] = {
    "generate": generate,
    "reward": reward,
    "logprob": logprob,
    "advantage": advantage,
    "sft": sft,
    "evaluate": evaluate,
}

Inputs = dict[tuple[int, str], Columns]
"""(partition, "stage.output") -> columns"""


class TorchEngine:
    def __init__(self) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settle(self._device)
        self.numerics = numerics_class(self._device)
        self.capabilities: tuple[str, ...] = ("torch", self._device.type)
        self._run: tuple[str, Path] | None = None
        self._policies: dict[str, Policy] = {}
        self._data: dict[str, DataSet] = {}

    def init(self, job: Job, work: InitWork) -> Done:
        start = time.perf_counter()
        self._enter(job)
        names = job.pipeline.trainable
        self._policies.clear()  # what is built now has its first weights, whatever was loaded before
        policies = [self._policy(job, name) for name in names]
        rooms = job.shards.allocate([4 * policy.parameters.numel() for policy in policies])
        for policy, room in zip(policies, rooms, strict=True):
            np.frombuffer(room, np.float32)[:] = policy.vector()
        refs = job.shards.seal(rooms)
        outputs = tuple((f"params:{name}", ref) for name, ref in zip(names, refs, strict=True))
        return Done((Made("init", outputs, seconds=time.perf_counter() - start),))

    def chain(self, job: Job, work: ChainWork) -> Done:
        self._enter(job)
        (chain,) = (c for c in plan(job.pipeline, work.step).chains if set(work.stages) <= set(c.stages))
        known: dict[str, Columns] = {name: layout.decode(job.shards.read(ref)) for name, ref in work.inputs}
        parts: list[tuple[str, list[Output], float]] = []
        for stage_id in work.stages:
            start = time.perf_counter()
            stage = job.pipeline.stage(stage_id)
            outputs = list(self._operate(job, work, stage, chain, known))
            known |= {f"{stage_id}.{output.name}": output.columns for output in outputs}
            parts.append((stage_id, outputs, time.perf_counter() - start))
        refs = iter(put(job.shards, [layout.encode(o.columns) for _, outputs, _ in parts for o in outputs]))
        made = tuple(
            Made(
                stage_id,
                tuple((output.name, next(refs)) for output in outputs),
                merge(tuple(output.metrics.items()) for output in outputs),
                next((output.groups for output in outputs if output.groups), ()),
                seconds,
            )
            for stage_id, outputs, seconds in parts
        )
        samples = specimens(job.pipeline, known, self._data) if work.partition == 0 else ()
        return Done(made, samples)

    def block(self, job: Job, work: BlockWork) -> Done:
        start = time.perf_counter()
        self._enter(job)
        stage = job.pipeline.stage(work.stage)
        policy = self._loaded(job, str(stage.model), work.state)
        objective = _objective(job.pipeline, stage)
        inputs: Inputs = {(part, name): layout.decode(job.shards.read(ref)) for part, name, ref in work.inputs}
        leaves = {leaf.leaf: leaf for leaf in work.leaves}
        stack = BlockStack(work.first, work.end)
        sums: list[Sums] = []
        for index in range(work.first, work.end):
            if index not in leaves:
                stack.push(None)
                continue
            policy.clear_gradient()
            data = _leaf_data(job.pipeline, stage, leaves[index], inputs)
            sums.append(add_gradient(policy, data, objective, job.progress))
            stack.push(policy.gradient())
        (room,) = job.shards.allocate([4 * policy.parameters.numel()])
        root = stack.root()
        np.frombuffer(room, np.float32)[:] = 0 if root is None else root
        (ref,) = job.shards.seal([room])
        metrics = merge(tuple(leaf.items()) for leaf in sums)
        return Done((Made(work.stage, (("gradient", ref),), metrics, seconds=time.perf_counter() - start),))

    def slice_(self, job: Job, work: SliceWork) -> Done:
        start = time.perf_counter()
        ref = reduce_slice(job.shards, work)
        return Done((Made(work.stage, (("slice", ref),), seconds=time.perf_counter() - start),))

    def apply(self, job: Job, work: ApplyWork) -> Done:
        start = time.perf_counter()
        stage = job.pipeline.stage(work.stage)
        outputs, metrics = apply_slices(job.shards, work, str(stage.model), stage.config)
        return Done((Made(work.stage, outputs, metrics, seconds=time.perf_counter() - start),))

    def save(self, job: Job, work: SaveWork) -> Done:
        """The first trainable model fills the folder; others have folders of their names in it."""
        start = time.perf_counter()
        self._enter(job)

        def fill(folder: Path) -> None:
            for index, name in enumerate(job.pipeline.trainable):
                place = folder / name if index else folder
                place.mkdir(exist_ok=True)
                self._loaded(job, name, work.state).save(place)
                job.progress()

        folder = checkpoint.write(job, work, fill)
        return Done((Made("save", (), seconds=time.perf_counter() - start),), detail=str(folder))

    def _enter(self, job: Job) -> None:
        """Forget another run's models, data and code. Raises HostError where this host has other files."""
        run = (str(job.pipeline.id), job.base)
        if self._run != run:
            self._run = None
            self._policies.clear()
            self._data.clear()
            forget_user_code()
            check_files(job.pipeline, job.base)
            self._run = run

    def _policy(self, job: Job, name: str) -> Policy:
        if name not in self._policies:
            config = job.pipeline.models[name]
            # Models described alike start alike, so that a reference is where its policy came from.
            seed = number("init", str(job.pipeline.id), json.dumps(config, sort_keys=True)) >> 1
            self._policies[name] = Policy(name, config, job.base, seed, self._device)
        return self._policies[name]

    def _loaded(self, job: Job, name: str, state: State) -> Policy:
        """A model with the parameters of `state`; one that is not trained has those it started with."""
        policy = self._policy(job, name)
        ref: ShardRef | None = dict(state).get(f"params:{name}")
        if ref is not None:
            policy.load(ref.id, job.shards.read(ref))
        return policy

    def _dataset(self, job: Job, name: str) -> DataSet:
        if name not in self._data:
            self._data[name] = DataSet(name, job.pipeline.data[name], job.base, job.pipeline.seed)
        return self._data[name]

    def _operate(
        self, job: Job, work: ChainWork, stage: Stage, chain: Chain, known: dict[str, Columns]
    ) -> Iterator[Output]:
        first, end = partition_groups(chain, work.partition)

        def policy(name: str) -> Policy:
            if stage.op == "sft":
                return self._policy(job, name)  # its tokenizer is all that demonstrations need
            return self._loaded(job, name, work.state)

        partition = Partition(
            job.pipeline,
            job.base,
            work.step,
            stage,
            first,
            end,
            known,
            policy,
            lambda name: self._dataset(job, name),
            job.progress,
        )
        if stage.op in OPERATORS:
            yield OPERATORS[stage.op](partition)
        else:
            yield from custom(partition)


def _objective(pipeline: Pipeline, stage: Stage) -> Objective:
    budget = int(stage.config["micro_batch_tokens"])
    if stage.op == "sft":
        return Objective("cross_entropy", budget)
    rollout = pipeline.stage(_read(stage, "rollout").partition(".")[0])
    loss = stage.config["loss"]
    low, high = loss["clip"]
    return Objective("rl", budget, float(rollout.config["temperature"]), (low, high), loss["mean"], loss["kl"])


def _read(stage: Stage, output: str) -> str:
    """The "stage.output" that a stage reads, or an empty text."""
    return next((name for name in stage.reads if name.endswith(f".{output}")), "")


def _leaf_data(pipeline: Pipeline, stage: Stage, leaf: LeafGroups, inputs: Inputs) -> LeafData:
    """The leaf's groups in its order."""
    data = LeafData()
    for partition, first, end in leaf.pieces:
        batch = inputs[partition, f"{stage.id}.batch" if stage.op == "sft" else _read(stage, "rollout")]
        prompts, said = columns.rows(batch["prompt"]), columns.rows(batch["tokens"])
        width = len(said) // len(prompts)
        samples = slice(first * width, end * width)
        data.owners += [len(data.prompts) + at // width for at in range((end - first) * width)]
        data.prompts += prompts[first:end]
        data.completions += said[samples]
        if stage.op == "sft":
            continue
        found = inputs[partition, _read(stage, "advantage")]
        data.advantages += columns.values(found["advantage"])[samples].tolist()
        scored = _read(stage, "logprob")
        rescored = columns.rows(inputs[partition, scored]["logprob"])[samples] if scored else []
        if scored and pipeline.stage(scored.partition(".")[0]).model == stage.model:
            data.logprobs += rescored  # the trainer's own view of the policy that sampled
        else:
            data.logprobs += columns.rows(batch["logprobs"])[samples]
            data.references += rescored
    return data
