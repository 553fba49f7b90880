"""What asking a model takes of the partition that it is done for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.models.description import Description
from dflowd.models.sampling import Completions, Sampler, Seats
from dflowd.slots.doing import Board
from dflowd.workers.pool import Pool


class Asked(Protocol):
    """A stage's partition, whose groups count from `first`. `code`: the folder that users' classes are loaded from."""

    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def code(self) -> Path: ...
    @property
    def step(self) -> int: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def first(self) -> int: ...
    @property
    def board(self) -> Board: ...
    @property
    def progress(self) -> Callable[[], None]: ...

    def description(self) -> Description: ...
    def sample(self, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Completions: ...
    def workers(self) -> Pool: ...
