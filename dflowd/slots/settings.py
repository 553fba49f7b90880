"""What a child must know of a run, and what does not change while the daemon runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .devices import Devices


@dataclass(frozen=True, slots=True)
class RunBrief:
    """What a child must know of a run. `code`: folder from which users' functions are loaded. `engine`: which kind of
    engine the run asks for."""

    spec: bytes
    base: str
    code: str
    folder: str
    engine: str


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """`host_slots`: for work on shards alone, beside `slots`; 0: those do that, too. `silence_s`, `stall_s`: as in the
    section [engine] of the configuration. `folder`: where children's sockets and last words lie; `environment`: what
    they are started with. `host_threads`: of each child, for work on shards. `workers`, `worker_memory`: processes of
    each child for users' functions, and the bytes that each may take."""

    slots: int
    devices: Devices
    folder: Path
    environment: Mapping[str, str]
    silence_s: float
    stall_s: float
    host_slots: int = 0
    host_threads: int = 1
    workers: int = 1
    worker_memory: int = 8 << 30
