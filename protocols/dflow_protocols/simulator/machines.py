"""The machines of a world: who is who, and which process a frame reaches where two have one key."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..names import NodeId, node_id
from .model.clock import HostClock
from .model.host import Host

BEGAN_S = 1e5  # what a clock shows at most when the world begins


def key_of(index: int) -> bytes:
    """The 32 bytes that stand for the public key of the machine of this index."""
    return (index + 1).to_bytes(32, "little")


class Machines:
    """By index, by id and by address. An id names two machines once a state directory was copied."""

    def __init__(
        self,
        seed: int,
        slots: Sequence[int],
        host_slots: Sequence[int],
        roles: Sequence[tuple[str, ...]],
        classes: int = 1,
    ) -> None:
        """What each has of slots and roles: one after the other, again from the first where machines are more.
        `classes`: of numerics; each machine is of one of them."""
        self.all: list[Host] = []
        self._seed = seed
        self._classes = classes
        self._slots, self._host_slots, self._roles = tuple(slots), tuple(host_slots), tuple(roles)
        self._by_id: dict[NodeId, list[Host]] = {}
        self._by_address: dict[str, Host] = {}

    def add(self, seeds: tuple[int, ...], clocks: Random | None = None) -> Host:
        """One that was not there before. `clocks`: draws what its clock shows."""
        return self._add(len(self.all), seeds, clocks)

    def copy(self, host: Host) -> Host:
        """One that was not there before, with a copy of what lies on another one's disk, its key with it."""
        copied = self._add(host.index, tuple(range(len(self.all))), None)
        copied.disk.copy(host.disk)
        copied.answer_files(host.files)
        copied.store.limit(host.store.limit_bytes)
        return copied

    def _add(self, like: int, seeds: tuple[int, ...], clocks: Random | None) -> Host:
        """With the key and all else that the machine of the index `like` is given."""
        index = len(self.all)
        shows_s = (clocks or Random(f"{self._seed}/clock/{index}")).uniform(0, BEGAN_S)
        key = key_of(like)
        host = Host(
            index,
            node_id(key),
            node_id(key_of(index)),
            HostClock(shows_s),
            seeds,
            self._slots[like % len(self._slots)],
            self._host_slots[like % len(self._host_slots)],
            self._roles[like % len(self._roles)],
            key,
        )
        host.health.compute_as(Random(f"{self._seed}/numerics/{index}").randrange(self._classes))
        self.all.append(host)
        self._by_id.setdefault(host.id, []).append(host)
        self._by_address |= {host.control: host, host.bulk: host}
        return host

    @property
    def are_unlike(self) -> bool:
        """Whether each has a key of its own."""
        return len(self._by_id) == len(self.all)

    def names(self) -> dict[str, str]:
        """Of each id that of the machine which had it first."""
        return {node: there[0].name for node, there in self._by_id.items()}

    def place(self, node: NodeId, address: str) -> NodeId:
        """Where an address of a member leads; to the member, if nobody listens there."""
        host = self._by_address.get(address)
        return node if host is None else host.place

    def reached(self, source: Host, to: NodeId) -> Host | None:
        """Who gets a frame to this id. Of two whoever spoke to `source` last, as long as it lives: over that link
        frames go. Else whoever was dialled."""
        there = self._by_id.get(to, [])
        if len(there) < 2 or source.process is None:
            return there[0] if there else None
        lanes = source.process.lanes
        last = next((host for host in there if host.place == lanes.spoke.get(to)), None)
        if last is None or last.process is None:
            last = self._by_address.get(lanes.dials[to].control) if to in lanes.dials else None
        return None if last is source else last

    def holder(self, asker: Host, node: NodeId) -> Host | None:
        """Whom a member's bulk address leads to."""
        there = self._by_id.get(node, [])
        if len(there) < 2 or asker.process is None:
            return there[0] if there else None
        dial = asker.process.lanes.dials.get(node)
        return None if dial is None else self._by_address.get(dial.bulk)

    def served(self, index: int) -> Host:
        """Whom a client of this machine asks: the other process, where this one is silent and says so."""
        host = self.all[index]
        speaking = [other for other in self._by_id[host.id] if not other.is_silent]
        return speaking[0] if host.is_silent and speaking else host
