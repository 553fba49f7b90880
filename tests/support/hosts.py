"""Hosts on one network for tests: network namespaces on a bridge that lies in a namespace of its own, so that this
machine's own addresses and routes stay as they are. Needs root and Linux's `ip`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class Hosts:
    """`addresses`: host name -> IPv4 address; all in one /24. Use as a context."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses
        self._label = f"dh{os.getpid()}"
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
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

    def _there(self, host: str, words: Sequence[str]) -> list[str]:
        program = {"dflow": [sys.executable, "-m", "dflow_cli.app"], "dflowd": [sys.executable, "-m", "dflowd"]}
        return ["ip", "netns", "exec", f"{self._label}{host}", *program[words[0]], *words[1:]]

    def _build(self) -> None:
        bridge = f"{self._label}net"
        _ip("netns", "add", bridge)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for index, (name, address) in enumerate(self._addresses.items()):
            space, port = f"{self._label}{name}", f"p{index}"
            _ip("netns", "add", space)
            _ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def _tear_down(self) -> None:
        for name in (*self._addresses, "net"):
            subprocess.run(["ip", "netns", "del", f"{self._label}{name}"], check=False, capture_output=True, timeout=30)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)
