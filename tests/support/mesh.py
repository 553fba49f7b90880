"""Real daemons on loopback for tests: their own keys, allow-list, configuration and state in one folder."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import msgpack
import zmq

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.frame import decode_frame, encode_frame
from dflow_protocols.wire.keys import key_text
from dflowd.transport.keys import KeyPair, new_key_pair, write_key_pair
from tests.support import launch
from tests.support.until import until

T = TypeVar("T")
START_S = 30.0  # a daemon takes half a second; a loaded machine has its way
LOAD_S = 5.0  # more for each: dozens of daemons load their modules at once
STORY_LINES = 25


class Refused(Exception):
    """The daemon answered that it will not: `value` is {what, hint, exit}."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__(value["what"])
        self.value = value


@dataclass(slots=True)
class Daemon:
    """One daemon, running or not."""

    name: str
    folder: Path
    keys: KeyPair
    control: str
    bulk: str
    process: launch.Process | None = None
    seeds: tuple[str, ...] | None = None  # names of the daemons that its configuration names; all others if None
    environment: dict[str, str] = field(default_factory=dict)  # beside this process's own

    @property
    def id(self) -> str:
        return str(self.keys.id)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def config(self) -> Path:
        return self.folder / "dflowd.toml"

    def log_lines(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def children(self) -> list[int]:
        """Pids of its engine children."""
        tasks = Path(f"/proc/{self.pid}/task")
        files = tasks.glob("*/children") if tasks.is_dir() else []
        return [int(pid) for file in files for pid in file.read_text().split()]


class Mesh:
    """Daemons n0, n1, ... that know each other as seeds. Use as a context: at its end all are killed.

    `start`: how the daemons' processes come about.
    """

    start: ClassVar[launch.Starter] = staticmethod(launch.spawn)

    def __init__(
        self, folder: Path, count: int, extra: str = "", host: str = "127.0.0.1", timing: str = "local"
    ) -> None:
        """`extra`: more lines of every daemon's configuration, sections of their own. `host`: as an address has it.
        `timing`: the configuration's `mesh.timing`."""
        self.folder, self._extra, self._host, self._timing = folder, extra, host, timing
        self.nodes: dict[str, Daemon] = {}
        self.client = new_key_pair()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._requests = itertools.count(1)
        self._links: dict[str, zmq.Socket[bytes]] = {}
        for _ in range(count):
            self.prepare()

    def __enter__(self) -> Self:
        with ExitStack() as unfinished:  # nobody leaves a context that was not entered
            unfinished.callback(self.__exit__, None, None, None)
            for node in self.nodes.values():
                self.launch(node)
            self.await_all()
            unfinished.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for node in self.nodes.values():
            self.kill(node)
        self._context.destroy(linger=0)

    # Daemons --------------------------------------------------------------------------------------------------------

    def prepare(self) -> Daemon:
        """The files of one more daemon; it is on everybody's allow-list, and the others are its seeds."""
        name = f"n{len(self.nodes)}"
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        node = Daemon(name, folder, new_key_pair(), *self.addresses(name))
        write_key_pair(folder / "key", node.keys)
        self.nodes[name] = node
        self.write_allow_list()
        return node

    def addresses(self, name: str) -> tuple[str, str]:
        """Where the daemon of this name will listen: control, bulk."""
        control, bulk = (f"tcp://{self._host}:{port}" for port in free_ports(2))
        return control, bulk

    def launch(self, node: Daemon) -> None:
        """Start its process; it need not answer yet."""
        self.write_config(node)
        node.process = Mesh.start(node.config, node.folder / "output", node.environment)

    def add(self) -> Daemon:
        """One more daemon joins."""
        node = self.prepare()
        self.launch(node)
        return node

    def kill(self, node: Daemon) -> None:
        """kill -9, and reap it."""
        self._end(node, signal.SIGKILL, START_S)

    def terminate(self, node: Daemon, deadline_s: float = START_S) -> int:
        """SIGTERM; its exit status."""
        return self._end(node, signal.SIGTERM, deadline_s)

    def _end(self, node: Daemon, number: signal.Signals, deadline_s: float) -> int:
        link = self._links.pop(node.name, None)
        if link is not None:
            link.close(linger=0)
        if node.process is None:
            return 0
        node.process.send_signal(number)
        status = node.process.wait(deadline_s)
        node.process = None
        return status

    def running(self) -> list[Daemon]:
        return [node for node in self.nodes.values() if node.process is not None]

    def write_allow_list(self) -> None:
        lines = [f"{key_text(node.keys.public)} {node.name}" for node in self.nodes.values()]
        lines.append(f"{key_text(self.client.public)} client client")
        new = self.folder / "allow.new"
        new.write_text("\n".join(lines) + "\n")
        os.replace(new, self.folder / "allow")

    def write_config(self, node: Daemon) -> None:
        """Its configuration as its fields now say."""
        named = self.nodes if node.seeds is None else node.seeds
        others = [self.nodes[name] for name in named if name != node.name]
        seeds = [f"{key_text(other.keys.public)}@{other.control.removeprefix('tcp://')}" for other in others]
        node.config.write_text(
            f"""
[node]
name = "{node.name}"
state_dir = "state"
[listen]
control = "{node.control}"
bulk = "{node.bulk}"
[mesh]
allow_list = "../allow"
seeds = {json.dumps(seeds)}
timing = "{self._timing}"
leave_timeout_s = 5
[trust]
key_file = "key"
[log]
file = "log"
{self._extra}
"""
        )

    # Questions ------------------------------------------------------------------------------------------------------

    def ask(self, node: Daemon, method: str, deadline_s: float = 10.0, **params: Any) -> dict[str, Any]:
        """What a client gets from `node`. Raises Refused, and TimeoutError when it does not answer."""
        link = self._links.get(node.name) or self._connect(node)
        request = Request(next(self._requests), method, msgpack.packb(params), deadline_s)
        link.send(encode_frame(None, (request,)))
        while link.poll(int((deadline_s + 2.0) * 1000)):
            for answer in decode_frame(link.recv()).messages:
                assert isinstance(answer, Response)
                if answer.id == request.id:
                    value: dict[str, Any] = msgpack.unpackb(answer.value)
                    if not answer.ok:
                        raise Refused(value)
                    return value
        self._links.pop(node.name).close(linger=0)
        raise TimeoutError(f"{node.name} did not answer {method}")

    def submit(self, node: Daemon, pipeline: Pipeline, nonce: str = "1") -> str:
        """The id of the run."""
        spec = pipeline.canonical()
        return str(self.ask(node, "submit", spec=spec, base=str(self.folder), name="test", nonce=nonce)["run"])

    def states(self, node: Daemon) -> dict[str, str]:
        """Name -> state of every member, as `node` sees them."""
        return {member["name"]: member["state"] for member in self.ask(node, "nodes")["nodes"]}

    def await_all(self) -> None:
        """Until all running daemons see each other alive."""
        names = {node.name for node in self.running()}

        def all_see_all() -> bool:
            return all(names <= self._alive_to(node) for node in self.running())

        self.until(all_see_all, START_S + LOAD_S * len(names))

    def until(self, condition: Callable[[], T], deadline_s: float) -> T:
        """As until(), telling each node's last reports when it fails."""
        return until(condition, deadline_s, self.story)

    def story(self) -> str:
        parts = []
        for node in self.nodes.values():
            output = (node.folder / "output").read_text(errors="replace") if node.process else ""
            parts.append("\n  ".join([f"{node.name} {node.id[:8]}:", *node.log_lines()[-STORY_LINES:], output]))
        return "\n".join(parts)

    def _alive_to(self, node: Daemon) -> set[str]:
        try:
            return {name for name, state in self.states(node).items() if state == "alive"}
        except TimeoutError:
            assert node.process is not None
            assert node.process.poll() is None, self.story()
            return set()

    def _connect(self, node: Daemon) -> zmq.Socket[bytes]:
        link = self._context.socket(zmq.DEALER)
        link.curve_publickey = key_text(self.client.public).encode()
        link.curve_secretkey = key_text(self.client.secret).encode()
        link.curve_serverkey = key_text(node.keys.public).encode()
        link.ipv6 = "[" in node.control
        link.connect(node.control)
        self._links[node.name] = link
        return link


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, below those that the kernel lends to outgoing connections."""
    found: list[int] = []
    start = 10_000 + os.getpid() * 1_000 % 22_000  # test processes beside this one begin elsewhere
    for port in itertools.chain(range(start, 32_000), range(10_000, start)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port in _handed_out:
            continue
        _handed_out.add(port)
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free port on loopback")


_handed_out: set[int] = set()
