"""Hosts on one network for tests: network namespaces on a bridge that lies in a namespace of its own, so that this
machine's own addresses and routes stay as they are. Needs root and Linux's `ip`.

Names carry this process's id: what a process left behind that was killed is removed when the next network is made.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

OUTSIDE = "10.0.0.1"  # the bridge's own address: where whoever asks from beside the hosts comes from
WHOLE_PACKETS = ("gso_max_segs", "1")  # a packet is what a cable carries, not what the kernel joins from many
LONGEST_JOINED = 64 << 10
_NAME = re.compile(r"dh(\d+)x")
_NUMBERS = itertools.count()
_LIBC = ctypes.CDLL(None, use_errno=True)


@cache
def lacks(*programs: str) -> str:
    """Why this machine lets us make no networks, in words; empty if it does. `programs`: needed beside `ip`."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("ip", *programs) if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    try:
        with Hosts({"probe": "10.0.0.2"}):
            return ""
    except subprocess.CalledProcessError as why:
        return f"may not make network namespaces: {why.stderr.decode().strip()}"


class Hosts:
    """`addresses`: host name -> IPv4 address; all in OUTSIDE's /24. Use as a context.

    `joined`: many packets of one stream pass as one of up to LONGEST_JOINED bytes, as with network cards that cut them
    (TSO) and join them (GRO); faults that strike packets one by one need them whole.
    """

    def __init__(self, addresses: dict[str, str], *, joined: bool = False) -> None:
        self.addresses = dict(addresses)
        self.joined = joined
        self._label = f"dh{os.getpid()}x{next(_NUMBERS)}"
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        remove_stale()
        try:
            self._build()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._running:
            process.kill()
            process.wait(30)
        self._tear_down()

    def run(self, host: str, words: Sequence[str], folder: Path, typed: str = "") -> str:
        """Standard output of a command that ends by 0 on this host. `typed`: its standard input."""
        done = subprocess.run(
            self._there(host, words),
            cwd=folder,
            input=typed,
            capture_output=True,
            text=True,
            timeout=180.0,
            check=False,
        )
        said = f"{host}: {' '.join(words)} ended by {done.returncode}:\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        return done.stdout

    def start(self, host: str, words: Sequence[str], folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """A command that goes on until the context ends."""
        process = subprocess.Popen(self._there(host, words), cwd=folder, stdout=output, stderr=output)
        self._running.append(process)
        return process

    def space(self, host: str) -> str:
        """The host's network namespace, as `ip netns` calls it."""
        return f"{self._label}{host}"

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """What this thread opens meanwhile, and threads and processes that it starts, are on that host."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            enter(self.space(host))
            yield
        finally:
            _set_namespace(own)
            os.close(own)

    def outside(self) -> AbstractContextManager[None]:
        """As on(), of no host: from OUTSIDE all are reached."""
        return self.on("net")

    def port(self, host: str) -> str:
        """The bridge's end of the host's cable; it lies in the namespace of the host `net`."""
        return f"p{list(self.addresses).index(host)}"

    def _there(self, host: str, words: Sequence[str]) -> list[str]:
        ours = {"dflow": [sys.executable, "-m", "dflow_cli.app"], "dflowd": [sys.executable, "-m", "dflowd"]}
        return ["ip", "netns", "exec", self.space(host), *ours.get(words[0], [words[0]]), *words[1:]]

    def _build(self) -> None:
        bridge, packets = self.space("net"), () if self.joined else WHOLE_PACKETS
        _ip("netns", "add", bridge)
        _ip("-n", bridge, "link", "set", "lo", "up")
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "addr", "add", f"{OUTSIDE}/24", "dev", "br0")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for name, address in self.addresses.items():
            space, port = self.space(name), self.port(name)
            _ip("netns", "add", space)
            _ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", bridge, "link", "set", port, *packets, "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", *packets, "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def _tear_down(self) -> None:
        for name in (*self.addresses, "net"):
            _try("netns", "del", self.space(name))


def enter(space: str) -> None:
    """This thread, and what it starts, is in that network namespace from now on."""
    handle = os.open(f"/run/netns/{space}", os.O_RDONLY)
    try:
        _set_namespace(handle)
    finally:
        os.close(handle)


def _set_namespace(handle: int) -> None:
    if _LIBC.setns(handle, 0):
        raise OSError(ctypes.get_errno(), "setns")


def remove_stale() -> None:
    """Namespaces of processes that are gone, and what still runs in them."""
    for line in _try("netns", "list").splitlines():
        space = line.split()[0]
        if is_stale(space):
            for pid in _try("netns", "pids", space).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _try("netns", "del", space)


def is_stale(name: str) -> bool:
    """Whether that is a name of ours whose process is gone."""
    found = _NAME.match(name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def _try(*words: str) -> str:
    """What it says, if it can be done."""
    return subprocess.run(["ip", *words], check=False, capture_output=True, text=True, timeout=30).stdout
