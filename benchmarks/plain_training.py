"""The same training without a mesh: a plain PyTorch loop in one process, to be measured against.

    python -m benchmarks.plain_training SPEC STEPS [KEY=VALUE ...]      what plain_loop.py starts

The model, the data, the sampler, the rewards and the losses are the engine's, and so are the batches that decide how
much is computed (partitions, leaves, micro-batches). All else is what one writes by hand: parameters and one gradient
in place, torch's AdamW and clipping; no daemon, no shards, no hashes, no second copy of anything. Prints one JSON
object a step: its number, when it ended (seconds since 1970), the processor time until then, and sums of rewards.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dflow_cli.spec.specfile import load
from dflow_protocols.pipeline import Chain, Pipeline, Stage, Training, partition_groups, plan
from dflow_protocols.steps.reduction import cut_leaves
from dflow_protocols.work import Groups
from dflowd.child.process import ENVIRONMENT, NICENESS

if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)  # read by libraries when they are loaded, which is from here on

import numpy as np
import torch

from dflowd.data.order import DataSet
from dflowd.engines.exactness import settle
from dflowd.engines.opened import first_seed
from dflowd.models.policy import Policy
from dflowd.operators.partition import Columns, Partition
from dflowd.operators.registry import operate
from dflowd.training.gather import Inputs, leaf_data, objective_of
from dflowd.training.leaf import add_gradient
from dflowd.training.optimizer import AdamW


class PlainLoop:
    """One trained model, updated by the stages of a pipeline, one step after the other."""

    def __init__(self, pipeline: Pipeline, base: Path) -> None:
        device = torch.device("cpu")
        settle(device)
        self.pipeline, self.base = pipeline, base
        self.policies = {
            name: Policy(name, config, base, first_seed(pipeline, name)) for name, config in pipeline.models.items()
        }
        (trained,) = pipeline.trainable
        self.policy = self.policies[trained]
        self.gradient = np.zeros(self.policy.parameters.size, np.float32)
        self.policy.parameters.begin_gradient(self.gradient)
        self.data = {name: DataSet(name, config, base, pipeline.seed) for name, config in pipeline.data.items()}
        self.optimizers: dict[str, torch.optim.AdamW] = {}

    def step(self, number: int) -> dict[str, float]:
        """Roll out, score, and update once; returns sums of metrics."""
        step_plan = plan(self.pipeline, number)
        inputs: dict[tuple[int, str], Columns] = {}
        groups: dict[str, dict[int, Groups]] = {}
        sums: dict[str, float] = {}
        for chain in step_plan.chains:
            for part in range(chain.partitions):
                for stage, known, metrics, kept in self._chain(number, chain, part):
                    inputs |= {(part, name): columns for name, columns in known.items()}
                    sums |= {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
                    groups.setdefault(stage, {})[part] = kept
        for training in step_plan.trainings:
            self._update(training, inputs, tuple(kept for _, kept in sorted(groups[training.groups_from].items())))
        return sums

    def _chain(
        self, step: int, chain: Chain, part: int
    ) -> list[tuple[str, dict[str, Columns], Mapping[str, float], Groups]]:
        first, end = partition_groups(chain, part)
        known: dict[str, Columns] = {}
        made: list[tuple[str, dict[str, Columns], Mapping[str, float], Groups]] = []
        for name in chain.stages:
            stage = self.pipeline.stage(name)
            partition = Partition(
                self.pipeline,
                self.base,
                step,
                stage,
                first,
                end,
                known,
                self.policies.__getitem__,
                self.data.__getitem__,
                lambda: None,
            )
            for output in operate(partition):
                known[f"{name}.{output.name}"] = output.columns
                made.append((name, {f"{name}.{output.name}": output.columns}, output.metrics, output.groups))
        return made

    def _update(self, training: Training, inputs: Inputs, groups: tuple[Groups, ...]) -> None:
        stage = self.pipeline.stage(training.stage)
        kept = [counts for part in groups for counts in part]
        if not any(tokens for tokens, _ in kept):
            return
        total = training.divide_by(kept)
        self.gradient.fill(0)
        for leaf in cut_leaves(groups, training.leaves):
            add_gradient(
                self.policy, leaf_data(self.pipeline, stage, leaf, inputs), objective_of(self.pipeline, stage), _nothing
            )
        parameters = list(self.policy.model.parameters())
        self.gradient /= np.float32(total)
        if stage.config["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(parameters, stage.config["clip_norm"])
        settings = AdamW.from_config(stage.config["optimizer"])
        optimizer = self.optimizers.setdefault(stage.id, _optimizer(stage, parameters, settings))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate(training.update, training.updates)
        optimizer.step()


def _optimizer(stage: Stage, parameters: list[torch.nn.Parameter], settings: AdamW) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, settings.lr, settings.betas, settings.eps, settings.weight_decay, foreach=True)


def _nothing() -> None:
    pass


def main() -> None:
    spec, steps, *sets = sys.argv[1:]
    os.nice(NICENESS)
    loaded = load(Path(spec), (), sets)
    loop = PlainLoop(loaded.pipeline, loaded.base)
    for number in range(int(steps)):
        sums = loop.step(number)
        row: dict[str, Any] = {"step": number, "time_s": time.time(), "cpu_s": time.process_time()}
        row |= {"reward_sum": sums.get("reward_sum"), "correct": sums.get("correct")}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
