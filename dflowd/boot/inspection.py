"""What is so about a daemon's configuration on this host, whether the daemon runs or not: for `check-config`.

Opens files and tries ports; starts nothing and changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any, Literal

from dflow_protocols.wire.endpoint import parse_endpoint

from ..process.lifetime import began_ticks
from ..slots.devices import find_devices
from ..state.directory import StateError
from ..transport.keys import AllowList, read_key_pair
from .config import Config
from .facts import host_facts
from .gpus import gpu_facts
from .identity import find_seeds
from .preflight import check_packages

PortState = Literal["free", "ours", "taken", "foreign", "any"]


def check(config: Config, path: Path) -> None:
    """Everything about a configuration that can be known without starting: raises what a start would."""
    check_packages(config, path)
    if config.trust.key_file is not None:
        read_key_pair(config.trust.key_file)
    find_seeds(config, path, AllowList(config.mesh.allow_list))
    folder = config.node.state_dir
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = f"`{config.node.state_dir}` cannot be written"
        raise StateError(what, "name a folder that this user may write, or chown it")


def inspect(config: Config, path: Path) -> dict[str, Any]:
    """The facts that `dflow doctor` judges. Raises as check(), and KeyFileError for a bad key in the state directory.

    `was_killed`: its daemon is gone and did not say so.
    `listen`: for each lane its address, and whether it is free, in use by the daemon of this state directory (`ours`),
    in use by something else (`taken`), or no address of this host (`foreign`); `any`: a free port will be taken.
    """
    check(config, path)
    allow_list = AllowList(config.mesh.allow_list)
    key_file = config.trust.key_file or config.node.state_dir / "key"
    pair = read_key_pair(key_file) if key_file.exists() else None  # one in the state directory is made at the start
    line = allow_list.lines.get(pair.public) if pair is not None else None
    roles = [allowed.role for allowed in allow_list.lines.values()]
    running = running_address(config.node.state_dir)
    return {
        "config": str(path),
        "facts": host_facts(config, find_devices(), gpu_facts()),
        "running": running,
        "was_killed": not running and (config.node.state_dir / "address.json").exists(),
        "listen": {
            lane: {"address": address, "state": port_state(address, running.get(lane, ""))}
            for lane, address in (("control", config.listen.control), ("bulk", config.listen.bulk))
        },
        "key": {
            "file": str(key_file),
            "public": pair.public_text if pair is not None else "",
            "listed": {"name": line.name, "address": line.address, "role": line.role} if line is not None else None,
        },
        "allow_list": {
            "path": str(config.mesh.allow_list),
            "nodes": roles.count("node"),
            "clients": roles.count("client"),
            "open_to_all": bool(config.mesh.allow_list.stat().st_mode & 0o002),
        },
        "seeds": [seed.control for seed in find_seeds(config, path, allow_list)],
    }


def running_address(state_dir: Path) -> dict[str, Any]:
    """What the daemon that runs in `state_dir` wrote there; an empty map if none runs."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        fields: dict[str, Any] = json.loads((state_dir / "address.json").read_text())
        if began_ticks(int(fields["pid"])) == fields["began"]:
            return fields
    return {}


def port_state(address: str, own: str) -> PortState:
    """`own`: where the daemon of this configuration listens now, or an empty text."""
    place = parse_endpoint(address)
    if own and parse_endpoint(own) == place:
        return "ours"
    if not place.port:
        return "ours" if own else "any"
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the lanes do
            probe.bind((place.host, place.port))
            probe.listen()
    except OSError as error:
        return "taken" if error.errno == errno.EADDRINUSE else "foreign"
    return "free"
