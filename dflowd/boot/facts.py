"""Facts of this host and of what a daemon on it may use, for `dflow doctor`: measured here, judged there.

Reads /proc, limits and file systems; opens no port and starts nothing.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline.grammar.layout import PLAN_VERSION
from dflow_protocols.wire.frame import WIRE_VERSION

from ..slots.devices import Devices
from ..slots.numerics import advertised_class
from ..slots.optional import offered
from .config import Config

CGROUPS = Path("/sys/fs/cgroup")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # one for all daemons that share a kernel, and so its memory


def host_facts(config: Config, devices: Devices, gpus: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sizes in bytes; a limit that there is not is None. `gpus`: what the driver tells of them."""
    return {
        "name": config.node.name,
        "boot_id": _boot_id(),
        "versions": versions(),
        "numerics": advertised_class(devices),
        "device": devices.text,
        "gpus": list(gpus),
        "engines_offered": [asdict(each) for each in offered(devices)],
        "limits": {"nofile": _limit(resource.RLIMIT_NOFILE), "memlock": _limit(resource.RLIMIT_MEMLOCK)},
        "memory": {**memory_of_host(), "cgroup_limit": cgroup_limit(), "shards_limit": config.shards.memory_limit},
        "disk": {"path": str(config.node.state_dir), **_disk(config.node.state_dir)},
        "fabric": config.trust.fabric,
        "timing": config.mesh.timing,
    }


def _boot_id() -> str | None:
    """None where it is hidden from this process."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


def versions() -> dict[str, str]:
    return {"dflowd": installed_version("dflowd"), "wire": str(WIRE_VERSION), "plan": str(PLAN_VERSION)}


def memory_of_host() -> dict[str, int]:
    """`total`, and `available` without swapping."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        name: int(lines[key].split()[0]) * 1024 for name, key in (("total", "MemTotal"), ("available", "MemAvailable"))
    }


def memory_of_process() -> dict[str, int]:
    """Memory of this process that is in RAM: its own, and that of shards it has mapped itself."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, file, shared = (int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem"))
    return {"resident_bytes": own + file, "mapped_bytes": shared}


def cgroup_limit(own: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS) -> int | None:
    """The least memory limit of the control groups (version 2) that this process is in; None where there is none."""
    limits = []
    for group in groups_of(own, cgroups):
        try:
            text = (group / "memory.max").read_text().strip()
        except OSError:
            text = "max"
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=None)


def groups_of(own: Path, cgroups: Path) -> Iterator[Path]:
    """Folders of the control groups (version 2) that the process is in whose `/proc/PID/cgroup` is `own`."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    place = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if place is None:
        return
    group = cgroups / place.lstrip("/")
    while group != cgroups and cgroups in group.parents:
        yield group
        group = group.parent


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _disk(folder: Path) -> dict[str, Any]:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return {"free": usage.free, "total": usage.total, "writable": os.access(folder, os.W_OK)}
