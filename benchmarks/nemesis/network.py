"""Faults of the network between daemons that each have a namespace of their own, alone or while a process is struck."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from benchmarks.figure import Tell
from benchmarks.nemesis.trial import Trial
from tests.support.disk import fill, small_disk
from tests.support.links import Links
from tests.support.mesh import Daemon
from tests.support.sites import BULK_PORT, HostMesh

DAEMONS = 5
PAUSE_S = 5.0  # longer than it takes to be declared dead
SPLIT_S = 6.0
DISK_BYTES = 1 << 30  # room for what all runs of a session leave; it takes memory only while it is full
FLAP_S = 1.0  # down, then up, as long as the run goes on
NAMES = [f"n{index}" for index in range(DAEMONS)]
NEIGHBOURS = list(itertools.pairwise(NAMES))
SPOKES = [(NAMES[0], name) for name in NAMES[1:]]
REPORTS = (  # those that name a fault of the network
    "membership.unreached",
    "membership.unreachable",
    "membership.apart",
    "membership.unsteady",
    "transport.short_only",
    "transport.slow_link",
)


@dataclass(frozen=True)
class Fault:
    """`impose`: from the run's submission on; where it `lasts_s`, or a process is struck too, from the first generation
    on, and so long."""

    what: str
    impose: Callable[[Links], None]
    lasts_s: float | None = None


FAULTS = {
    "one-way": Fault("n2 does not hear n1", lambda links: links.cut_one_way("n1", "n2")),
    "pair": Fault("n1 and n2 cannot talk", lambda links: links.cut(("n1", "n2"))),
    "pairs": Fault("two pairs cannot talk", lambda links: links.cut(("n0", "n1"), ("n2", "n3"))),
    "line": Fault("each talks to its neighbours in a line", lambda links: links.keep(NEIGHBOURS)),
    "star": Fault("all talk to n0 alone", lambda links: links.keep(SPOKES)),
    "loss-5": Fault("5 % of the packets are lost", lambda links: links.lose(5)),
    "loss-20": Fault("20 % of the packets are lost", lambda links: links.lose(20)),
    "slow": Fault("10 Mbit/s for each", lambda links: links.narrow(10)),
    "mtu": Fault("packets over 1,000 bytes are lost", lambda links: links.drop_longer(1000)),
    "bulk": Fault("n2's bulk port is closed", lambda links: links.close("n2", BULK_PORT)),
    "split": Fault("two and three cannot talk", lambda links: links.split(["n0", "n1"]), SPLIT_S),
}
FLAP = "flap"  # needs a thread
HITS = {
    "leave": "SIGTERM of a daemon",
    "stop": f"SIGSTOP of a daemon for {PAUSE_S:g} s",
    "kill": "kill -9 of a daemon",
    "full": "a disk that fills up",
}


@dataclass
class NetworkTrial(Trial):
    """The last daemon's state lies on a small disk, `disk`."""

    disk: Path = Path()
    _read: dict[str, int] = field(default_factory=dict)  # lines of each log when the run began
    _flapping: threading.Thread | None = None
    _is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def links(self) -> Links:
        return cast(HostMesh, self.mesh).links

    def submit(self) -> str:
        self._read = {node.name: len(node.log_lines()) for node in self.mesh.nodes.values()}
        return super().submit()

    def noticed(self) -> dict[str, object]:
        lines = [line for node in self.mesh.nodes.values() for line in node.log_lines()[self._read[node.name] :]]
        named = [report for report in REPORTS if any(f" {report} " in line for line in lines)]
        return {
            "suspected": self._about_the_living(lines, "membership.suspected"),
            "died": self._about_the_living(lines, "membership.died"),
            "named": " ".join(named) or "no",
        }

    def _about_the_living(self, lines: list[str], report: str) -> int:
        living = [node.id for node in self.mesh.nodes.values() if node.name not in self.struck]
        return sum(f" {report} node={node} " in line for line in lines for node in living)

    def restore(self) -> None:
        self.heal()
        (self.disk / "filler").unlink(missing_ok=True)
        super().restore()

    def heal(self) -> None:
        if self._flapping is not None:
            self._is_over.set()
            self._flapping.join()
            self._flapping = None
            self._is_over.clear()
        self.links.heal()

    def flap(self) -> None:
        """The cable of n2 is loose, until heal()."""

        def go_on() -> None:
            while not self._is_over.is_set():
                self.links.split(["n2"])
                self._is_over.wait(FLAP_S)
                self.links.heal()
                self._is_over.wait(FLAP_S)

        self._flapping = self._flapping or threading.Thread(target=go_on)
        if not self._flapping.is_alive():
            self._flapping.start()

    def fill_disk(self, _: Daemon) -> None:
        fill(self.disk)


@contextmanager
def network_trial(folder: Path, tell: Tell) -> Iterator[NetworkTrial]:
    """Daemons that run, each on a host of its own."""
    with small_disk(folder / NAMES[-1] / "state", DISK_BYTES) as disk, HostMesh(folder, DAEMONS) as mesh:
        trial = NetworkTrial(mesh, tell, disk=disk)
        try:
            yield trial
        finally:
            trial.heal()


def imposers(trial: NetworkTrial) -> dict[str, Callable[[], None]]:
    """Name -> from now on the network has that fault."""
    return {name: partial(fault.impose, trial.links) for name, fault in FAULTS.items()} | {FLAP: trial.flap}


def network_names() -> set[str]:
    """Of all faults of the network, alone and while a process is struck."""
    return {f"{name}{hit}" for name in (*FAULTS, FLAP) for hit in ("", *(f"+{word}" for word in HITS))}


def network_faults(trial: NetworkTrial) -> dict[str, Callable[[], None]]:
    """Name -> a trial of that fault; with +leave, +stop, +kill or +full behind it, of both."""
    hits: dict[str, Callable[[Daemon], None]] = {
        "leave": trial.leave,
        "stop": partial(trial.pause_daemon, PAUSE_S),
        "kill": trial.kill,
        "full": trial.fill_disk,
    }
    tried: dict[str, Callable[[], None]] = {}
    for name, impose in imposers(trial).items():
        fault = FAULTS.get(name) or Fault(f"n2's cable is loose: {FLAP_S:g} s down, as long up", lambda links: None)
        tried[name] = partial(_try, trial, fault, impose, "", lambda node: None)
        for word, hit in hits.items():
            tried[f"{name}+{word}"] = partial(_try, trial, fault, impose, HITS[word], hit)
    return tried


def _try(
    trial: NetworkTrial, fault: Fault, impose: Callable[[], None], hit_in_words: str, hit: Callable[[Daemon], None]
) -> None:
    def strike(run: str) -> None:
        if fault.lasts_s is None and not hit_in_words:
            impose()
            return
        victim = trial.seen(run, "generation")[-1]  # before, since an answer for all may take longer than the run then
        impose()
        hit(victim)
        if fault.lasts_s is not None:
            time.sleep(fault.lasts_s)
            trial.heal()

    trial.try_fault(f"{fault.what}, {hit_in_words}" if hit_in_words else fault.what, "all of it", strike)
