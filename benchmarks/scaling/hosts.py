"""Hosts of their own for nodes that share this machine: slower than real ones by one factor in all that they have.

A host has a network namespace behind a link, and a control group with a part of the cores. Where links, cores and
devices are all slower by the same factor, a step takes longer by that factor and everything else stays in proportion,
so that two cores carry many hosts of two cores, and what crosses a link or one process is what decides. Told in the
hosts' own time: seconds here, over the factor. It is what Gupta, Yocum, McNett, Snoeren, Vahdat and Voelker call time
dilation ("To Infinity and Beyond: Time-Warped Network Emulation", NSDI 2006), without a clock that is bent: timeouts
and heartbeats of daemons are those of real time, so they talk more often in the hosts' time than real ones would; of
Ray, which takes a host that is busy for so long for dead, those are as much longer that its settings name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.scaling.cores import Quotas, lacks_quotas
from tests.support.hosts import Hosts, enter, lacks
from tests.support.links import Links
from tests.support.sites import FIRST_ADDRESS


@dataclass(frozen=True, slots=True)
class Host:
    """What each is like in its own time, and how many times slower it is here."""

    slower: float
    cores: float
    gbit_s: float

    def lacks(self) -> str:
        """Why this machine can make none, in words; empty if it can."""
        return lacks("tc") or lacks_quotas()


class SlowHosts:
    """Hosts of these names. Use as a context; they are as fast as this machine until they are held back."""

    def __init__(self, names: Sequence[str], host: Host) -> None:
        self.host = host
        self.net = Hosts({name: f"10.0.0.{FIRST_ADDRESS + at}" for at, name in enumerate(names)}, joined=True)
        self._quotas = Quotas(names)
        self._at: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as unfinished:
            unfinished.enter_context(self.net)
            unfinished.enter_context(self._quotas)
            self._stack = unfinished.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """Of the host that this process is on."""
        assert self._at is not None, "it is on none"
        return self.net.addresses[self._at]

    def enter(self, name: str) -> None:
        """This process is on that host from now on: its cores are those of all its threads, its network is that of
        this thread and of those that this one starts."""
        enter(self.net.space(name))
        self._quotas.enter(name)
        self._at = name

    @contextmanager
    def on(self, name: str) -> Iterator[str]:
        """What this thread starts meanwhile is on that host, whose address is given."""
        with self.net.on(name):
            self._quotas.enter(name)
            try:
                yield self.net.addresses[name]
            finally:
                self._quotas.enter(self._at)

    def hold_back(self) -> None:
        """From now on each has its cores and its link, and no more."""
        self._quotas.limit(self.host.cores / self.host.slower)
        Links(self.net).narrow(self.host.gbit_s * 1000 / self.host.slower)

    def throttled_s(self) -> dict[str, float]:
        """Seconds, in the hosts' own time, for which runnable processors of each waited, its cores being used up."""
        return {name: waited / self.host.slower for name, waited in self._quotas.throttled_s().items()}
