"""logprob: scores the sampled tokens by a model, such as a frozen reference.

Writes `logprob`: float32 per completion token, of the full vocabulary at the rollout's temperature.
"""

from __future__ import annotations

import numpy as np
import torch

from dflowd.data import columns
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import micro_batches

from .partition import Output, Partition

BATCH_TOKENS = 8192  # padded tokens of one forward pass


def logprob(partition: Partition) -> Output:
    rollout = partition.read("rollout")
    maker = partition.pipeline.stage(partition.source("rollout").partition(".")[0])
    policy = partition.policy(str(partition.stage.model))
    prompts, said = columns.rows(rollout["prompt"]), columns.rows(rollout["tokens"])
    lengths = columns.lengths(rollout["tokens"])
    owners = [sample // int(maker.config["group"]) for sample in range(len(said))]
    starts = np.cumsum(lengths) - lengths
    scores = np.zeros(int(lengths.sum()), np.float32)
    for batch in micro_batches(prompts, owners, said, BATCH_TOKENS, policy.in_line):
        with torch.inference_mode():
            found, _ = likelihood(policy, batch, float(maker.config["temperature"]))
        scores[starts[batch.samples] + batch.offsets] = found.cpu().numpy()
        partition.progress()
    return Output("logprob", {"logprob": columns.pack(scores, lengths)})
