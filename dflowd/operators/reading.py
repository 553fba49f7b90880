"""What a model says of each token that was sampled: passes over a partition's rollout, micro-batch by micro-batch.

logprob: scores the sampled tokens by a model, such as a frozen reference. Writes `logprob`: float32 per completion
token, of the full vocabulary at the rollout's temperature.

value: what a critic expects to come, before each token of a completion is said. Writes `value`: float32 per completion
token, of the state that the token is said from.

reward_model: how good a completion is, by a model that has read all of it but its last token, which is the end token of
one that was not cut off. Writes `reward`: float32 per completion, NaN where nothing was said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflow_protocols.metrics import REFERENCE_KL_COUNT, REFERENCE_KL_SAMPLES, REFERENCE_KL_SUM
from dflow_protocols.pipeline.weighing import adaptive
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.models.likelihood import likelihood, values
from dflowd.models.packing import MicroBatch, micro_batches
from dflowd.models.policy import Policy
from dflowd.shards.layout import Column

from .partition import Output, Partition
from .reward import reward_metrics

BATCH_TOKENS = 8192  # padded tokens of one forward pass


def logprob(partition: Partition) -> Output:
    maker = partition.pipeline.stage(partition.source("rollout").partition(".")[0])
    policy, temperature = partition.policy(str(partition.stage.model)), float(maker.config.get("temperature", 1.0))
    scored = by_token(partition, policy, lambda batch: likelihood(policy, batch, temperature)[0])
    is_followed = any(each.measured == partition.stage.id for each in adaptive(partition.pipeline))
    return Output("logprob", {"logprob": scored}, _apart(partition, scored) if is_followed else {})


def _apart(partition: Partition, scored: Column) -> dict[str, float]:
    """How far who sampled is from the model that scored, over the tokens that it said itself."""
    said = partition.read("rollout")
    own, lengths = columns.own_tokens(said), columns.own_lengths(said)
    mine = slice(None) if own is None else np.concatenate(own)
    sampled, others = (columns.values(each)[mine].astype(np.float64) for each in (said["logprobs"], scored))
    sums = float((sampled - others).sum()), len(sampled), len(lengths)
    return dict(zip((REFERENCE_KL_SUM, REFERENCE_KL_COUNT, REFERENCE_KL_SAMPLES), sums, strict=True))


def value(partition: Partition) -> Output:
    critic = partition.policy(str(partition.stage.model))
    return Output("value", {"value": by_token(partition, critic, lambda batch: values(critic, batch))})


def reward_model(partition: Partition) -> Output:
    judge, said = partition.policy(str(partition.stage.model)), partition.read("rollout")
    found = columns.rows(by_token(partition, judge, lambda batch: values(judge, batch)))
    own = columns.own_tokens(said) or [np.ones(len(row), np.bool_) for row in found]
    rewards = [row[is_own][-1] if is_own.any() else np.nan for row, is_own in zip(found, own, strict=True)]
    scored = np.array(rewards, np.float32)
    return Output("reward", {"reward": columns.pack(scored)}, reward_metrics(scored))


def by_token(partition: Partition, model: Policy, says: Callable[[MicroBatch], Tensor]) -> Column:
    """A float32 for each completion token of the rollout. `says`: of a micro-batch's tokens, [tokens] float32. Raises
    UserError where `model` cannot read what another one was asked and said."""
    rollout = partition.read("rollout")
    prompts, said = columns.rows(rollout["prompt"]), columns.rows(rollout["tokens"])
    lengths = columns.lengths(rollout["tokens"])
    owners = [sample * len(prompts) // len(said) for sample in range(len(said))]
    _require_readable(partition, model, [*prompts, *said])
    starts = np.cumsum(lengths) - lengths
    found = np.zeros(int(lengths.sum()), np.float32)
    for batch in micro_batches(prompts, owners, said, BATCH_TOKENS, model.in_line):
        with torch.inference_mode():
            found[starts[batch.samples] + batch.offsets] = says(batch).cpu().numpy()
        partition.progress()
    return columns.pack(found, lengths)


def _require_readable(partition: Partition, model: Policy, texts: Sequence[Any]) -> None:
    last = max((int(text.max(initial=0)) for text in texts), default=0)
    if last >= model.rows:
        what = f"token {last} of a text is beyond the vocabulary of {model.rows} of model `{model.name}`"
        raise UserError(f"{what}; take one that reads the tokens of the model that sampled", partition.stage.id)
