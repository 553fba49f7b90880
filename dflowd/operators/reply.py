"""reply: samples a completion that goes on from each one of a rollout. Writes `rollout`, as generate does.

`tokens` are all that is behind what the group's completions have in common: what was replied to, then what was said.
"""

from __future__ import annotations

from dflowd.asking.replies import Heard
from dflowd.asking.replies import reply as replied
from dflowd.data import columns

from .generate import sampler_of, written
from .partition import Output, Partition, read_rollout


def reply(partition: Partition) -> Output:
    before = read_rollout(partition)
    turns = [before.said_then(sample) for sample in range(len(before.completions))]
    heard = Heard(before.entries, before.messages, before.completions, turns)
    data = partition.data(partition.beginning().config["data"])
    said = replied(partition, data, heard, sampler_of(partition))
    return written(columns.values(partition.read("rollout")["position"]), said, partition.version)
