"""A mesh whose daemons are each on a host of its own, so that the network between them can fail.

Needs root and Linux's `ip` (tests.support.hosts.lacks); tests that use it are skipped elsewhere. Tests ask
from outside: they reach every daemon, whatever lies between the daemons.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from tests.support.hosts import Hosts, enter
from tests.support.links import Links
from tests.support.mesh import Daemon, Mesh

CONTROL_PORT, BULK_PORT = 7300, 7301
FIRST_ADDRESS = 10  # 10.0.0.10 is the first daemon's


class HostMesh(Mesh):
    """Daemon n3 is on host n3. `links`: what is wrong between the hosts."""

    links: Links

    def __init__(
        self, folder: Path, count: int, extra: str = "", timing: str = "local", hosts: Hosts | None = None
    ) -> None:
        """`hosts`: ones that stand, with those names, and that stay when the mesh is gone; its own if None."""
        self._own = Hosts({f"n{index}": f"10.0.0.{FIRST_ADDRESS + index}" for index in range(count)})
        self.hosts = hosts or self._own
        super().__init__(folder, count, extra, timing=timing)

    def __enter__(self) -> Self:
        if self.hosts is self._own:
            self._own.__enter__()
        self.links = Links(self.hosts)
        with self.hosts.outside():
            self._context.socket(zmq.PAIR).close()  # the context's threads are born there, and dial from there
        try:
            return super().__enter__()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        if self.hosts is self._own:
            self._own.__exit__(kind, error, at)

    def addresses(self, name: str) -> tuple[str, str]:
        host = f"tcp://{self.hosts.addresses[name]}"
        return f"{host}:{CONTROL_PORT}", f"{host}:{BULK_PORT}"

    def launch(self, node: Daemon) -> None:
        self.write_config(node)
        there = partial(enter, self.hosts.space(node.name))
        node.process = Mesh.start(node.config, node.folder / "output", node.environment, there)


class TwoSites(HostMesh):
    """The first half of the daemons is near, the other half far."""

    def near(self) -> list[Daemon]:
        return list(self.nodes.values())[: len(self.nodes) // 2]

    def far(self) -> list[Daemon]:
        return list(self.nodes.values())[len(self.nodes) // 2 :]

    def cut(self) -> None:
        """From now on no packet goes from one site to the other, and nobody is told."""
        self.links.split([node.name for node in self.near()])

    def heal(self) -> None:
        self.links.heal()
