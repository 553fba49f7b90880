"""One machine of a world: a node that may be up, paused or down, its memory, its disk and its engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, TypeAlias

from ...events import Action, Event, Start
from ...names import NodeId, RunId, ShardId, VersionId
from ...story import Story
from ...versions.saved import Saved
from .bulk import BulkLane
from .store import Shelf


class Machine(Protocol):
    """What a world drives: a node, whole."""

    @property
    def deadline(self) -> float: ...
    def handle(self, now: float, event: Event) -> list[Action]: ...
    def check(self) -> None: ...


@dataclass(frozen=True)
class Birth:
    """What a node starts with."""

    index: int
    incarnation: int
    rng: Random
    now: float  # by its own clock
    disk: Mapping[str, bytes]
    saved: tuple[Saved, ...]
    seeds: tuple[int, ...]  # indices of the nodes that its configuration names
    roles: tuple[str, ...] = ()
    slots: int = 1


Bear: TypeAlias = Callable[[Birth], Machine]


@dataclass
class Host:
    index: int
    id: NodeId
    offset_s: float  # its clock's zero is its own
    seeds: tuple[int, ...]
    machine: Machine | None = None
    incarnation: int = 0
    comes_back: bool = False  # it is down, and somebody will start it again
    paused: bool = False
    backlog: list[Event] = field(default_factory=list)  # what arrived during the pause
    disk: dict[str, bytes] = field(default_factory=dict)
    saved: dict[VersionId, Saved] = field(default_factory=dict)  # checkpoints; they outlive a crash
    damaged: set[VersionId] = field(default_factory=set)  # of these: what a reader finds out
    shelf: Shelf = field(default_factory=Shelf)
    bulk: BulkLane | None = None
    calls: dict[int, Start] = field(default_factory=dict)  # those that run, and those that wait for a slot
    running: set[int] = field(default_factory=set)  # of the calls: those in a slot
    trims: dict[int, int] = field(default_factory=dict)  # call -> leaf before which its block is to end
    made: dict[int, Counter[tuple[RunId, ShardId]]] = field(default_factory=dict)  # by calls the node is yet to hear of
    dialled: dict[NodeId, str] = field(default_factory=dict)  # whose addresses it knows: the bulk one, if any
    inbox_until: float = 0.0  # when the last event that waits in its inbox is due
    alarm: float | None = None
    last_tick: float = -1.0
    ticks_in_place: int = 0
    replies: dict[int, tuple[bool, Mapping[str, Any]]] = field(default_factory=dict)
    performed: int = 0  # actions, over all its lives
    roles: tuple[str, ...] = ()  # words that stages may require
    speed: float = 1.0  # of its engines
    slots: int = 1
    handicaps: set[str] = field(default_factory=set)  # of the machine: they outlast restarts
    break_works: int = 0
    break_kind: str = ""
    turns: int = 0  # of this life
    story: Story = field(init=False)

    def __post_init__(self) -> None:
        self.story = Story(self.id)

    @property
    def name(self) -> str:
        return f"n{self.index}"

    @property
    def answers(self) -> bool:
        """Whether its sockets are served."""
        return self.machine is not None and not self.paused

    def count_turn(self) -> int:
        """The number of the turn that begins: the cause of all that comes of it."""
        self.turns += 1
        return self.turns

    def lose_memory(self) -> None:
        """kill -9: the process, its children and its shared memory."""
        self.machine = None
        self.bulk = None
        self.paused = False
        self.backlog.clear()
        self.calls.clear()
        self.running.clear()
        self.trims.clear()
        self.made.clear()
        self.dialled.clear()
        self.alarm = None
        self.break_works = 0
        self.turns, self.story = 0, Story(self.id)
        self.shelf = Shelf(self.shelf.limit_bytes, peak_bytes=self.shelf.peak_bytes)
