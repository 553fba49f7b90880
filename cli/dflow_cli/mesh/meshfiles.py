"""The files of a local mesh in DIR: keys, allow-list, each daemon's config, and `mesh.json`, which says who is there.

    DIR/mesh.json  client.key  allow  runs/RUN/...  n0/{config.toml, key, log, output, state/}  n1/...

Owns their formats as a client writes them. Starts nothing (see localmesh.py).
"""

from __future__ import annotations

import json
import os
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from dflow_protocols.names import node_id
from dflow_protocols.wire.keys import Allowed, parse_key

from ..errors import CliError
from .client import KeyedEndpoint, KeyPair
from .keyfiles import enter, key_pair

MEMORY_LIMIT = "2 GiB"  # of shards, a daemon
_LOWEST_PORT = 15000


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A daemon of a local mesh. `control` and `bulk` are tcp://HOST:PORT, `config` its file, `key` z85. `began`: when
    its process did, in clock ticks since the host's start; 0 before that."""

    name: str
    id: str
    key: str
    pid: int
    control: str
    bulk: str
    config: str
    began: int = 0

    @property
    def endpoint(self) -> KeyedEndpoint:
        return KeyedEndpoint(self.key, self.control)

    @property
    def folder(self) -> Path:
        return Path(self.config).parent


@dataclass(frozen=True, slots=True)
class MeshFile:
    """What `mesh.json` holds: its daemons in the order they were started, whether their state stays in DIR when they
    stop, as that of `dflow up` does, and whether they stop with the runs for which `dflow run` started them."""

    keeps_state: bool
    nodes: tuple[LocalNode, ...]
    is_of_run: bool = False


def read_mesh(folder: Path) -> MeshFile | None:
    """The mesh that DIR speaks of, up or not; None where there is no such file. Raises CliError when it is damaged."""
    path = folder / "mesh.json"
    try:
        value = json.loads(path.read_text())
        nodes = tuple(LocalNode(**node) for node in value["nodes"])
        return MeshFile(value["keeps_state"], nodes, value.get("is_of_run", False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(f"cannot be read ({error})", where=str(path), hint="stop its daemons and delete it") from error


def write_mesh(folder: Path, mesh: MeshFile) -> None:
    replace_text(folder / "mesh.json", json.dumps(asdict(mesh), indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: whoever reads meanwhile sees the old one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def id_of(key: str) -> str:
    """The node id that follows from a public key in z85."""
    return node_id(parse_key(key))


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, below the range that the kernel lends to outgoing connections: a daemon
    that dials a neighbour not yet there must not be given that neighbour's port, or it would speak to itself."""
    try:
        top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        top = 32768
    found: list[int] = []
    ports = range(_LOWEST_PORT, max(top, _LOWEST_PORT + 1000))
    for port in random.sample(ports, len(ports)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    what = f"{count} free ports are needed on 127.0.0.1, and of {ports.start} to {ports.stop - 1} {len(found)} are"
    raise CliError(what, hint="start fewer daemons: each has two; or stop what listens there")


def prepare_node(folder: Path, name: str, ports: tuple[int, int]) -> LocalNode:
    """Make the folder and key of a daemon that is not started yet (pid 0). Ports: control lane, bulk lane."""
    place = folder / name
    place.mkdir(exist_ok=True)
    key = key_pair(place / "key", "node").public
    control, bulk = (f"tcp://127.0.0.1:{port}" for port in ports)
    return LocalNode(name, id_of(key), key, 0, control, bulk, str(place / "config.toml"))


def write_config(folder: Path, node: LocalNode, seeds: list[KeyedEndpoint]) -> None:
    """The daemon's config file. Every other daemon of the mesh is a seed."""
    lines = [
        "[node]",
        f"name = {json.dumps(node.name)}",
        f"state_dir = {json.dumps(str(node.folder / 'state'))}",
        "[listen]",
        f"control = {json.dumps(node.control)}",
        f"bulk = {json.dumps(node.bulk)}",
        "[mesh]",
        f"allow_list = {json.dumps(str(folder / 'allow'))}",
        f"seeds = {json.dumps([str(seed) for seed in seeds if seed.key != node.key])}",
        'timing = "local"',
        "[trust]",
        f"key_file = {json.dumps(str(node.folder / 'key'))}",
        "run_code = true",  # what this user's pipelines bring, on this user's machine
        "[shards]",
        f"memory_limit = {json.dumps(MEMORY_LIMIT)}",
        "[engine]",
        "slots = 1",
        "[log]",
        f"file = {json.dumps(str(node.folder / 'log'))}",
    ]
    replace_text(Path(node.config), "\n".join(lines) + "\n")


def write_allow_list(folder: Path, nodes: list[LocalNode], client: KeyPair) -> None:
    """Who may speak to the mesh: these daemons, the client whose key lies in DIR, and whoever was authorized since."""
    lines = [Allowed(parse_key(node.key), node.name, node.control.removeprefix("tcp://")) for node in nodes]
    enter(folder / "allow", [*lines, Allowed(parse_key(client.public), "client", role="client")])
