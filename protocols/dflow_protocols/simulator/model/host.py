"""One machine of a world: a node that may be up, paused or down, its memory, its disk and its engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, TypeAlias

from ...events import Action, DrainRequested, Event, FilesFound, Finished, NotPersisted, Persist, Start
from ...membership.table import DRAINED
from ...names import NodeId
from ...story import Story
from ...versions.saved import Saved
from .bulk import BulkLane
from .clock import HostClock, Lateness
from .disk import Disk, Writes
from .files import HERE, Script, Search
from .health import Health
from .network import Lanes
from .schedule import Life
from .slots import Slots
from .store import Store

TURN_S = 0.001  # of a loop: what comes meanwhile is taken in the next turn, together
STUCK_TICKS = 200  # a node whose deadline stays in the past for so many ticks in a row would spin for ever


class Machine(Protocol):
    """What a world drives: a node, whole."""

    @property
    def deadline(self) -> float: ...
    @property
    def must_act(self) -> bool: ...
    def take(self, now: float, event: Event) -> None: ...
    def act(self, now: float) -> list[Action]: ...
    def check(self) -> None: ...


def control_of(index: int) -> str:
    """Where the machine of this index listens."""
    return f"tcp://n{index}:1"


def bulk_of(index: int) -> str:
    """Where the machine of this index serves shards."""
    return f"tcp://n{index}:2"


@dataclass(frozen=True)
class BootContext:
    """What a node starts with."""

    index: int
    key: bytes  # its public key
    incarnation: int
    born_ms: int  # when it starts, by the wall clock
    rng: Random
    now: float  # by its own clock
    disk: Mapping[str, bytes]
    saved: tuple[Saved, ...]
    seeds: tuple[int, ...]  # indices of the nodes that its configuration names
    roles: tuple[str, ...] = ()
    slots: int = 1
    host_slots: int = 0


Spawn: TypeAlias = Callable[[BootContext], Machine]


@dataclass
class Process:
    """One life of the node: all of it is gone with kill -9."""

    machine: Machine
    life: Life
    slots: Slots
    bulk: BulkLane
    search: Search
    lanes: Lanes
    writes: Writes
    turn: Callable[[], None]  # of its loop
    lateness: Lateness = field(default_factory=Lateness)
    inbox: deque[Event] = field(default_factory=deque)  # for the next turn of its loop
    _is_due: bool = False  # whether that is to come, or under way
    _busy_until: float = 0.0  # with the last one

    def post(self, event: Event) -> None:
        """An event is there. The loop takes it at once, or when the turn before is over."""
        self.inbox.append(event)
        self._come_round()

    def write(self, asked: Persist) -> bool:
        """Whether it lies on the disk. That it does not the loop takes first of all that waits, which must not be
        answered as if it did, as `dflowd/driver.py:Driver.post` has it."""
        is_kept = self.writes.write(asked)
        if not is_kept:
            self.inbox.appendleft(NotPersisted(asked.key, asked.or_never))
            self._come_round()
        return is_kept

    def _come_round(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._wait()

    def keep_busy(self, seconds: float) -> None:
        """The turn that just ended takes so long: the next one comes after it."""
        self._busy_until = max(self._busy_until, self.life.now + seconds)

    def _wait(self) -> None:
        if self.life.now >= self._busy_until:
            self._go_round()
        else:
            self.life.after(self._busy_until - self.life.now, self._go_round)

    def _go_round(self) -> None:
        self._busy_until = self.life.now + TURN_S
        if self.inbox:
            self.turn()
        self._is_due = bool(self.inbox)
        if self._is_due:
            self._wait()


@dataclass
class Alarm:
    """A process's one alarm, and whether its machine makes it go off without end."""

    due: float | None = None
    _last_rung: float = -1.0
    _rung_in_place: int = 0

    def arm(self, due: float) -> bool:
        """Whether that is news."""
        is_news = self.due != due
        self.due = due
        return is_news

    def ring(self, now: float) -> bool:
        """It goes off. Whether time has passed at all in the last STUCK_TICKS times."""
        self.due = None
        self._rung_in_place = self._rung_in_place + 1 if self._last_rung == now else 0
        self._last_rung = now
        return self._rung_in_place <= STUCK_TICKS


@dataclass
class Host:
    """`id`: who it is to others; `place`: which machine it is. They are alike, but for one with another's key."""

    index: int
    id: NodeId
    place: NodeId
    clock: HostClock
    seeds: tuple[int, ...]
    slot_count: int = 1
    host_slot_count: int = 0
    roles: tuple[str, ...] = ()  # words that stages may require
    key: bytes = b""  # by which its node is known; of no account to anything else here
    process: Process | None = None
    lives: int = 0
    lag_s: float = 0.0  # so long what happens waits in its process before it is handled
    comes_back: bool = False  # it is down, and somebody will start it again
    paused: bool = False
    is_silent: bool = False  # another process has its key, and this one says nothing more
    is_drained: bool = False  # it was told to take no new work, and knows of it
    backlog: list[Event] = field(default_factory=list)  # what arrived during the pause
    disk: Disk = field(default_factory=Disk)
    store: Store = field(default_factory=Store)
    files: Script = HERE  # what it says of runs' files
    health: Health = field(default_factory=Health)
    alarm: Alarm = field(default_factory=Alarm)
    replies: dict[int, tuple[bool, Mapping[str, Any]]] = field(default_factory=dict)
    performed: int = 0  # actions, over all its lives
    turns: int = 0  # of this life
    name: str = field(init=False)
    story: Story = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.story = f"n{self.index}", Story(self.id)

    @property
    def control(self) -> str:
        """Where it listens."""
        return control_of(self.index)

    @property
    def bulk(self) -> str:
        """Where it serves shards."""
        return bulk_of(self.index)

    @property
    def machine(self) -> Machine | None:
        return None if self.process is None else self.process.machine

    @property
    def calls(self) -> Mapping[int, Start]:
        """Works that its slots were given and have not ended."""
        return {} if self.process is None else self.process.slots.calls

    def knows(self, node: NodeId) -> bool:
        """Whether it was told that member's addresses in this life."""
        return self.process is not None and node in self.process.lanes.dials

    @property
    def is_late(self) -> bool:
        """Whether what happens there waits, or will."""
        return self.lag_s > 0.0 or (self.process is not None and self.process.lateness.waiting > 0)

    @property
    def answers(self) -> bool:
        """Whether its sockets are served."""
        return self.process is not None and not self.paused

    def boot(self, seed: int, now: float) -> BootContext:
        """It is switched on: what its next life starts with."""
        self.lives += 1
        self.comes_back = False
        self.is_drained = DRAINED in self.disk.values
        return BootContext(
            self.index,
            self.key,
            self.disk.begin_life(),
            int(1000 * now),
            Random(f"{seed}/{self.name}/{self.lives}"),
            self.clock.read(now),
            dict(self.disk.values),
            tuple(self.disk.saved.values()),
            self.seeds,
            self.roles,
            self.slot_count,
            self.host_slot_count,
        )

    def run(self, process: Process) -> None:
        self.process = process

    def expect_back(self) -> None:
        """It is down, and somebody will start it again."""
        self.comes_back = True

    def heard(self, event: Event) -> None:
        """Its node is about to take this event."""
        assert self.process is not None
        if isinstance(event, Finished):
            self.process.slots.heard(event.call)
        if isinstance(event, DrainRequested):
            self.drain(event.drained)
        if isinstance(event, FilesFound):
            self.process.search.heard(event)

    def drain(self, drained: bool) -> None:
        """It hears that it is to take no new work, or some again."""
        self.is_drained = drained

    def fall_silent(self) -> None:
        """Another process with its key was there first."""
        self.is_silent = True

    def lag(self, lag_s: float) -> None:
        """From now on what happens waits so long in its process: a host that others keep busy, or that swaps."""
        self.lag_s = lag_s

    def mend(self) -> None:
        """What calm heals."""
        self.health.mend()
        self.disk.make_room()
        self.store.make_room()
        self.lag_s = 0.0

    def pause(self) -> None:
        """What waits in its inbox waits on."""
        self.paused = True
        if self.process is not None:
            self.backlog += self.process.inbox
            self.process.inbox.clear()

    def wake(self) -> list[Event]:
        """What arrived during the pause, in order."""
        self.paused = False
        backlog, self.backlog = self.backlog, []
        return backlog

    def answer_files(self, script: Script) -> None:
        """Whenever it is asked from now on."""
        self.files = script

    def is_linked(self, other: Host) -> bool:
        """Whether there is a connection: one of the two could dial the other."""
        return self._has_dialled(other) or other._has_dialled(self)

    def _has_dialled(self, other: Host) -> bool:
        return self.process is not None and other.id in self.process.lanes.linked

    def answer(self, request: int, ok: bool, value: Mapping[str, Any]) -> None:
        self.replies[request] = (ok, value)

    def count_turn(self) -> int:
        """The number of the turn that begins: the cause of all that comes of it."""
        self.turns += 1
        return self.turns

    def note_performed(self) -> None:
        """One more action is done."""
        self.performed += 1

    def lose_memory(self) -> None:
        """kill -9: the process, its children and its shared memory."""
        if self.process is not None:
            self.process.life.end()
        self.process = None
        self.paused = self.is_silent = False
        self.backlog.clear()
        self.alarm = Alarm()
        self.health.mend()
        self.turns, self.story = 0, Story(self.id)
        self.store = Store(self.store.limit_bytes, peak_bytes=self.store.peak_bytes)


class Watcher(Protocol):
    """Who looks at what nodes do."""

    def saw(self, host: Host, action: Action) -> None:
        """A node's action, once it is performed."""

    def heard(self, host: Host, event: Event) -> None:
        """A node's event, before it is taken."""

    def dies(self, host: Host) -> None:
        """A node's process is about to end."""
