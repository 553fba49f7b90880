"""The engine of a host's own slots: versions as shards, for runs whose models another engine holds.

It loads no model and no framework, so that it is up at once and small beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dflow_protocols.ranges import State
from dflow_protocols.versions.saved import Place
from dflowd.jobs.job import Job
from dflowd.training.accumulate import Vector

from .contract import Engine
from .states import ShardStates


def make_engine() -> Engine:
    """Its class of numerics is empty: what it computes is rounded alike on every machine."""
    return Engine(capabilities=("host",), numerics="", states=ShardStates(NoWeights()))


class NoWeights:
    """Weights (states.py) of an engine that is asked for none: first ones, and a checkpoint's model, are another's."""

    def sizes(self, job: Job) -> Mapping[str, int]:
        raise NotImplementedError("a host's slot has no models")

    def fill(self, job: Job, model: str, parameters: Vector) -> None:
        raise NotImplementedError("a host's slot has no models")

    def base(self, job: Job, model: str) -> bytes:
        raise NotImplementedError("a host's slot has no models")

    def save(self, job: Job, state: State, folder: Path) -> Mapping[str, Place]:
        raise NotImplementedError("a host's slot has no models")
