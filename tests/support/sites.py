"""A mesh in two sites whose link can be cut: each daemon in a network namespace of its own, on one of two bridges.

Needs root and Linux's `ip`; tests that use it are skipped elsewhere. Tests ask from the near site, so of daemons in
the far one they see only the logs while the link is cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from dflowd.transport.keys import new_key_pair, write_key_pair
from tests.support.mesh import Daemon, Mesh

_NUMBERS = itertools.count()


def can_cut() -> bool:
    """Whether this machine lets us make namespaces, bridges and links."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"df{os.getpid()}"  # another worker asks at the same time
    made = [_try("link", "add", f"{probe}a", "type", "veth", "peer", "name", f"{probe}b")]
    made.append(_try("netns", "add", probe))
    _try("link", "del", f"{probe}a")
    _try("netns", "del", probe)
    return all(made)


class TwoSites(Mesh):
    """The first half of the daemons is near, the other half far."""

    def __init__(self, folder: Path, count: int) -> None:
        self._label = f"df{os.getpid() % 10_000}{chr(97 + next(_NUMBERS) % 26)}"
        self._net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self._count = count
        super().__init__(folder, count)

    def __enter__(self) -> Self:
        try:
            self._build()
            return super().__enter__()
        except BaseException:
            self._tear_down()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        self._tear_down()

    def prepare(self) -> Daemon:
        index = len(self.nodes)
        name = f"n{index}"
        folder = self.folder / name
        folder.mkdir(parents=True)
        host = f"tcp://{self._net}.{index + 10}"
        node = Daemon(name, folder, new_key_pair(), f"{host}:7300", f"{host}:7301")
        write_key_pair(folder / "key", node.keys)
        self.nodes[name] = node
        self.write_allow_list()
        return node

    def launch(self, node: Daemon) -> None:
        self.write_config(node)
        command = ["ip", "netns", "exec", self._space(node), sys.executable, "-m", "dflowd", "run"]
        with (node.folder / "output").open("ab") as output:
            node.process = subprocess.Popen(
                [*command, "--config", str(node.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def near(self) -> list[Daemon]:
        return list(self.nodes.values())[: self._count // 2]

    def far(self) -> list[Daemon]:
        return list(self.nodes.values())[self._count // 2 :]

    def cut(self) -> None:
        """From now on no packet goes from one site to the other, and nobody is told."""
        _ip("link", "set", f"{self._label}x", "down")

    def heal(self) -> None:
        _ip("link", "set", f"{self._label}x", "up")

    def _space(self, node: Daemon) -> str:
        return f"{self._label}{node.name}"

    def _build(self) -> None:
        label = self._label
        for side in "lr":
            _ip("link", "add", f"{label}{side}", "type", "bridge")
            _ip("link", "set", f"{label}{side}", "up")
        _ip("addr", "add", f"{self._net}.1/24", "dev", f"{label}l")
        self._plug(f"{label}x", f"{label}l", f"{label}y")
        _ip("link", "set", f"{label}y", "master", f"{label}r", "up")
        for index, node in enumerate(self.nodes.values()):
            space, inside = self._space(node), f"{label}i{index}"
            _ip("netns", "add", space)
            self._plug(f"{label}o{index}", f"{label}{'l' if node in self.near() else 'r'}", inside)
            _ip("link", "set", inside, "netns", space)
            _ip("-n", space, "addr", "add", f"{self._net}.{index + 10}/24", "dev", inside)
            _ip("-n", space, "link", "set", inside, "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def _plug(self, outer: str, bridge: str, inner: str) -> None:
        """A cable: `outer` in the bridge, `inner` free."""
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", outer, "master", bridge, "up")

    def _tear_down(self) -> None:
        for node in self.nodes.values():
            _try("netns", "del", self._space(node))
        for name in ("x", "l", "r"):
            _try("link", "del", f"{self._label}{name}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def _try(*words: str) -> bool:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, timeout=30)
    return done.returncode == 0
