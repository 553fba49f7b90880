"""value: what a critic expects to come, before each token of a completion is said.

Writes `value`: float32 per completion token, of the state that the token is said from.
"""

from __future__ import annotations

from dflowd.models.likelihood import values

from .partition import Output, Partition
from .reading import by_token


def value(partition: Partition) -> Output:
    critic = partition.policy(str(partition.stage.model))
    return Output("value", {"value": by_token(partition, critic, lambda batch: values(critic, batch))})
