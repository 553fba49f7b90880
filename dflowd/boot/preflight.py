"""What is asked of the machine before a daemon starts: memory for its shards, disk for its state, and limits of the
shell or the service manager that it can live with."""

from __future__ import annotations

import resource
from importlib.util import find_spec
from pathlib import Path

from ..shards.spill import size_text
from ..state.directory import StateDirectory
from ..state.disk import LEAST_FREE_BYTES
from .config import Config, ConfigError, HostError
from .facts import CGROUPS, cgroup_limit, groups_of, memory_of_host

LEAST_FILES = 256  # sockets and engines take some fifty, each shard in memory one
LEAST_TASKS = 64  # threads and processes: this daemon has ten threads, an engine some twenty
ROOM_BESIDE_SHARDS = 1 << 30  # of addresses, for the program itself


def check_packages(config: Config, path: Path) -> None:
    """Raises ConfigError where what it asks for is not installed."""
    if config.observe.listen is not None and find_spec("prometheus_client") is None:
        hint = "`pip install '.[prometheus]'`, or leave the key out"
        raise ConfigError(f"{path}: observe.listen", "the package prometheus-client is not installed", hint)


def check_limits(path: Path, memory_limit: int) -> None:
    """Raises ConfigError where a limit that this process was started under would stop it in the middle of a run."""
    fsize, space = _soft(resource.RLIMIT_FSIZE), _soft(resource.RLIMIT_AS)
    files, left = resource.getrlimit(resource.RLIMIT_NOFILE)[1], tasks_left()
    if fsize is not None and fsize < memory_limit:
        what = f"a file may have {size_text(fsize)} at most, and shards of up to shards.memory_limit lie in files"
        raise _limited(path, what, "ulimit -f unlimited", "LimitFSIZE=infinity")
    if space is not None and space < memory_limit + ROOM_BESIDE_SHARDS:
        what = f"it may have {size_text(space)} of addresses, and shards.memory_limit is {size_text(memory_limit)}"
        raise _limited(path, what, "ulimit -v unlimited", "LimitAS=infinity")
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        what = f"it may have {files} open files, and needs {LEAST_FILES} at least"
        raise _limited(path, what, "ulimit -n 65536", "LimitNOFILE=65536")
    if left is not None and left < LEAST_TASKS:
        what = f"its control group may have {left} more threads and processes, and it needs {LEAST_TASKS}"
        raise _limited(path, what, "a larger pids.max", "TasksMax=infinity")
    seconds = _soft(resource.RLIMIT_CPU)
    if seconds is not None:
        what = f"the kernel ends it after {seconds} s of processor time"
        raise _limited(path, what, "ulimit -t unlimited", "LimitCPU=infinity")


def tasks_left(own: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS) -> int | None:
    """How many more tasks the control groups (version 2) of this process may have; None where nothing limits them."""
    found = []
    for group in groups_of(own, cgroups):
        try:
            most, used = ((group / f"pids.{name}").read_text().strip() for name in ("max", "current"))
        except OSError:
            continue
        if most.isdigit():
            found.append(int(most) - int(used))
    return min(found, default=None)


def _soft(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _limited(path: Path, what: str, shell: str, unit: str) -> ConfigError:
    return ConfigError(f"{path}: limits of this process", what, f"`{shell}` before it starts, or `{unit}` in its unit")


def check_machine(config: Config, path: Path, state: StateDirectory) -> None:
    """Raises ConfigError where shards.memory_limit is more than the machine has, the disk is full, or a package lacks.

    Shared memory is anonymous (memfd): neither /dev/shm's size nor RLIMIT_MEMLOCK bounds it, but the machine's memory
    and its control group do. What others use at the moment is no reason not to start, since a limit is no claim.
    """
    check_packages(config, path)
    check_limits(path, config.shards.memory_limit)
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
        raise HostError(
            f"{path}: node.state_dir",
            f"`{state.path}` is on a disk with {size_text(free)} free",
            f"free at least {size_text(LEAST_FREE_BYTES)} there, or name a folder on another disk",
        )
