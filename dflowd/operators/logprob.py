"""logprob: scores the sampled tokens by a model, such as a frozen reference.

Writes `logprob`: float32 per completion token, of the full vocabulary at the rollout's temperature.
"""

from __future__ import annotations

from dflowd.models.likelihood import likelihood

from .partition import Output, Partition
from .reading import by_token


def logprob(partition: Partition) -> Output:
    maker = partition.pipeline.stage(partition.source("rollout").partition(".")[0])
    policy, temperature = partition.policy(str(partition.stage.model)), float(maker.config["temperature"])
    scored = by_token(partition, policy, lambda batch: likelihood(policy, batch, temperature)[0])
    return Output("logprob", {"logprob": scored})
