"""What a slot may do at once, and what does not change while the daemon runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dflow_protocols.work import BlockWork, ChainWork, InitWork, SaveWork, Work, is_host_work

from .devices import Devices


class Kind(Enum):
    """What a work takes of a slot."""

    CHAIN = "chain"  # a model that samples
    BLOCK = "block"  # a model and its gradient
    MODEL = "model"  # a model alone: its first weights, its files
    HOST = "host"  # shards alone: slices, sums, updates, reading checkpoints


def kind_of(work: Work) -> Kind:
    match work:
        case ChainWork():
            return Kind.CHAIN
        case BlockWork():
            return Kind.BLOCK
        case InitWork() | SaveWork():
            return Kind.MODEL
    assert is_host_work(work)
    return Kind.HOST


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many works of a kind a slot does at once. Of one kind only: what it holds for one, such as a cache of keys
    and values or a gradient, is memory that another would need."""

    chains: int = 1
    blocks: int = 1

    def takes(self, kind: Kind, running: Collection[Kind]) -> bool:
        """Whether one more may begin beside those that run."""
        most = {Kind.CHAIN: self.chains, Kind.BLOCK: self.blocks}.get(kind, 1)
        return len(running) < most and all(other is kind for other in running)


@dataclass(frozen=True, slots=True)
class RunBrief:
    """What a child must know of a run. `engine`: which kind of engine the run asks for."""

    spec: bytes
    base: str
    folder: str
    engine: str


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """`host_slots`: for work on shards alone, beside `slots`; 0: those do that, too. `silence_s`, `stall_s`: as in the
    section [engine] of the configuration. `folder`: where children's sockets and last words lie; `environment`: what
    they are started with. `capacity`: of each slot. `host_threads`: of each child, for work on shards."""

    slots: int
    devices: Devices
    folder: Path
    environment: Mapping[str, str]
    silence_s: float
    stall_s: float
    capacity: Capacity = field(default_factory=Capacity)
    host_slots: int = 0
    host_threads: int = 1
