"""What is asked of the machine before a daemon starts: memory for its shards, disk for its state."""

from __future__ import annotations

from pathlib import Path

from .config import Config, ConfigError
from .disk import LEAST_FREE_BYTES
from .observe.health import cgroup_limit, memory_of_host
from .shards.spill import size_text
from .state import StateDirectory


def check_machine(config: Config, path: Path, state: StateDirectory) -> None:
    """Raises ConfigError where shards.memory_limit is more than the machine has, or the disk is full.

    Shared memory is anonymous (memfd): neither /dev/shm's size nor RLIMIT_MEMLOCK bounds it, but the machine's memory
    and its control group do. What others use at the moment is no reason not to start, since a limit is no claim.
    """
    total, group = memory_of_host()["total"], cgroup_limit()
    most, whose = (total, "this machine") if group is None or total <= group else (group, "its control group")
    if config.shards.memory_limit > most:
        limit = size_text(config.shards.memory_limit)
        raise ConfigError(
            f"{path}: shards.memory_limit",
            f"{limit} is more than the {size_text(most)} that {whose} has",
            f"give at most {size_text(most * 3 // 4)}; what does not fit goes to the state directory's disk",
        )
    free = state.free_bytes()
    if free < LEAST_FREE_BYTES:
        raise ConfigError(
            f"{path}: node.state_dir",
            f"`{state.path}` is on a disk with {size_text(free)} free",
            f"free at least {size_text(LEAST_FREE_BYTES)} there, or name a folder on another disk",
        )
