"""All nodes died at once: a run goes on from the best checkpoint that is whole on a disk which came back in time."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ....events import Advanced
from ....membership.bootstrap import decode_peers
from ....names import NodeId, RunId
from ....run_state.status import ACTIVE, load
from ....versions.versions import preference
from ....wire.steps import Head
from ...model.host import Host
from ...world import World
from ..checker import Checker, Seen, Steady, is_at_ease, is_whole, node_of

SPEAKS_S = 1.0  # in which a node that starts meets who waits for it, and says what it has
CLIENTS = frozenset({"cancel", "stop", "poison"})


@dataclass(frozen=True)
class Kept:
    """What lay on a disk when nobody lived: a run's best checkpoint that is whole."""

    host: Host
    head: Head


class Comeback(Checker):
    """`best_comes_back`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._kept: dict[RunId, list[Kept]] = {}  # by run, since all died
        self._first: dict[RunId, tuple[Host, Head]] = {}  # the first version that anybody held since then
        self._known: dict[NodeId, frozenset[NodeId]] = {}  # whom each disk names as there before
        self._struck = 0  # faults before that
        self._started: dict[NodeId, float] = {}  # since all died
        self._all_died = False

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced}

    def dies(self, host: Host) -> None:
        self._forget()
        self._all_died = all(each is host for each in self.world.live())

    def _forget(self) -> None:
        self._kept.clear()
        self._first.clear()

    def inspect(self) -> None:
        world = self.world
        if self._all_died:
            self._all_died = False
            self._take_stock()
        if self._kept and (self._struck != sum(world.struck.values()) or not is_whole(world)):
            self._forget()  # whatever came then may have kept the best from coming back
        if self._kept:
            for host in world.live():
                self._started.setdefault(host.id, world.now)
            for run, (host, head) in self._first.items():
                self._check(run, host, head)

    def _take_stock(self) -> None:
        world = self.world
        self._struck, self._started = sum(world.struck.values()), {}
        if world.struck.keys() & CLIENTS or not (is_whole(world) and world.machines.are_unlike):
            return
        for host in world.hosts:
            self._known[host.id] = frozenset(seed.node for seed in decode_peers(host.disk.values.get("peers", b"")))
            if not is_at_ease(host) or host.is_drained:
                continue
            for run in world.runs:
                whole = [
                    saved.header.head
                    for version, saved in host.disk.saved.items()
                    if saved.run == run and version not in host.disk.damaged
                ]
                status = host.disk.values.get(f"runs/{run}")
                if whole and status is not None and load(status).state == ACTIVE:
                    best = min(whole, key=preference)
                    self._kept.setdefault(run, []).append(Kept(host, best))

    def _advanced(self, host: Host, action: Advanced) -> None:
        """The first version since then: those that it should have waited for may still be on their way."""
        if action.run in self._kept and action.run not in self._first:
            self._first[action.run] = host, action.head

    def _check(self, run: RunId, host: Host, head: Head) -> None:
        """It is as good as what lies on each disk that came before this node's wait was over."""
        until = self._started.get(host.id, -inf) + node_of(host).timing.resume_wait_s - SPEAKS_S
        for kept in self._kept[run]:
            is_known = kept.host is host or kept.host.id in self._known[host.id]
            if is_known and self._started.get(kept.host.id, inf) < until and preference(kept.head) < preference(head):
                what = f"{host.name} goes on from version {head.step}, and {kept.host.name} has {kept.head.step}"
                raise self.broken(what, "best_comes_back")
