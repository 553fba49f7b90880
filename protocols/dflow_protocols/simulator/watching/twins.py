"""Two processes with one key: the mesh takes them for one node, so one of them falls silent as soon as they can hear of
each other."""

from __future__ import annotations

from ...events import Report, Send, Start
from ...names import NodeId
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, is_whole

HEARD_S = 8.0  # longer than the pause between two push-pulls of a member, by which all of it comes round


class Twins(Checker):
    """`one_speaks`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._both: dict[NodeId, float] = {}  # since when two speak under an id, and nothing keeps them apart
        self._silent: dict[NodeId, tuple[int, int]] = {}  # by place: in which life and turn it fell silent

    @property
    def sees(self) -> Seen:
        return {"membership.silenced": self._silenced, Send: self._acted, Start: self._acted}

    def _silenced(self, host: Host, report: Report) -> None:
        self._silent[host.place] = host.lives, host.turns

    def _acted(self, host: Host, action: Send | Start) -> None:
        life, turn = self._silent.get(host.place, (0, 0))
        if host.lives == life and host.turns > turn:  # in that very turn it still says who it is
            raise self.broken(f"{host.name} is silent, and acts: {type(action).__name__}", "one_speaks")

    def inspect(self) -> None:
        up = [host for host in self.world.hosts if host.answers]
        for node in sorted({host.id for host in self.world.hosts if host.place != host.id}):
            there = [host for host in up if host.id == node]
            speaking = [host for host in there if not host.is_silent]
            if there[1:] and not speaking:
                raise self.broken(f"both processes with the key of {there[0].name} are silent", "one_speaks")
            others = [host for host in up if host.id != node and not host.is_late]
            if not (speaking[1:] and others and is_whole(self.world)):
                self._both.pop(node, None)
            elif self.world.now - self._both.setdefault(node, self.world.now) > HEARD_S:
                names = " and ".join(host.name for host in speaking)
                raise self.broken(f"{names} have one key, and both speak for {HEARD_S:g} s", "one_speaks")
