"""One call from its Start to its end: what it reads and was granted in the store, and whether it makes progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dflow_protocols.events import Start
from dflow_protocols.names import ShardId, ShardRef, TaskKey
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import (
    ChainWork,
    Failed,
    InitWork,
    SaveWork,
    at_once,
    inputs_of,
    is_host_work,
    made_by,
)

from ..shards.segment import Segment
from ..shards.store import Store
from . import calls
from .settings import RunBrief

STATE_SHARE = (
    4  # a trained model's parameters, both moments and a gradient: 16 bytes a parameter, in sizes of the first
)


@dataclass(slots=True, eq=False)
class OpenCall:
    """Waits in the queue, then belongs to a slot. Knows nothing of the child that works on it."""

    asked: Start
    brief: RunBrief
    end: int | None = None  # of a block that was trimmed
    given_up_s: float | None = None
    waits: bool = False  # in the hand of a child that is at another one, and may be taken back until that ends
    made_in: tuple[int, ...] = ()  # bytes of the room of each output, in their order
    is_owed_room: bool = False  # what it asked for was not answered yet: the daemon is late, not the child
    _moved_s: float = 0.0  # when its progress last grew
    _progress: int = -1
    _pinned: tuple[ShardId, ...] = ()
    _granted: dict[int, Segment] = field(default_factory=dict)  # not yet in the store
    _sealed: list[calls.SealedShard] = field(default_factory=list)

    @property
    def id(self) -> int:
        return self.asked.call

    @property
    def at_once(self) -> int:
        """How many calls like it, of its run, a slot may have."""
        return at_once(self.asked.work)

    @property
    def is_chain(self) -> bool:
        """Whether it works on a partition."""
        return isinstance(self.asked.work, ChainWork)

    def is_like(self, task: TaskKey) -> bool:
        """Whether it is a partition of the same stage, done alone, and needs no slot for itself."""
        mine, is_alone = self.asked.task, self.is_chain and self.at_once == 1
        return is_alone and not self.asked.fresh and (mine.step, mine.stage) == (task.step, task.stage)

    @property
    def is_of_host(self) -> bool:
        """Whether it needs neither a model nor a device."""
        return is_host_work(self.asked.work)

    @property
    def is_save(self) -> bool:
        """Whether it writes a checkpoint, for which a device is not needed."""
        return isinstance(self.asked.work, SaveWork)

    @property
    def is_given_up(self) -> bool:
        return self.given_up_s is not None

    @property
    def priority(self) -> Priority:
        """Whose room it asks for, and how old that is."""
        return Priority(self.asked.run, self.asked.task.step, made_by(self.asked.work))

    def least_room(self, sizes: Sequence[int]) -> int:
        """Bytes without which outputs of these lengths are not worth making."""
        return sum(sizes) * (STATE_SHARE if isinstance(self.asked.work, InitWork) else 1)

    def give_up(self, now: float) -> None:
        self.given_up_s = now

    def trim(self, end: int) -> None:
        self.end = end

    def stand_by(self) -> None:
        """The child has it, and is at another one."""
        self.waits = True

    def go_on(self, now: float) -> None:
        """The child has come to it."""
        self.waits = False
        self.moved(now)

    # Progress -------------------------------------------------------------------------------------------------------

    def moved(self, now: float) -> None:
        self._moved_s = now

    def beat(self, progress: int, now: float) -> None:
        if progress != self._progress:
            self._progress, self._moved_s = progress, now

    def excuse(self, seconds: float) -> None:
        """While this process was stopped nothing could be heard of it."""
        self._moved_s += seconds

    def still_s(self, now: float) -> float:
        """For how long it makes no progress; while the daemon looks for room, that is not the call's."""
        return 0.0 if self.is_owed_room else now - self._moved_s

    def owe_room(self) -> None:
        self.is_owed_room = True

    def room_answered(self, now: float) -> None:
        self.is_owed_room, self._moved_s = False, now

    # What it has in the store ---------------------------------------------------------------------------------------

    def pin(self, store: Store) -> tuple[calls.Input, ...] | Failed:
        """The paths of what it reads, pinned while it runs; a failure where something is gone."""
        ranges = inputs_of(self.asked.work)
        for ref, first, end in ranges:
            if not store.has_range(ref.id, first, end):
                return Failed("lost", f"chunks {first} to {end} are not here", blame=ref.id)
        self._pinned = tuple(ref.id for ref, _, _ in ranges)
        for shard in self._pinned:
            store.pin(shard)
        return tuple(_input(store, *each) for each in ranges)

    def take(self, granted: Sequence[Segment]) -> None:
        self._granted.update({segment.number: segment for segment in granted})

    def seal(self, shards: Sequence[calls.SealedShard]) -> None:
        """The child says what lies finished in its segments; it counts with the end of the call."""
        self._sealed.extend(shards)

    def keep(self, store: Store) -> list[ShardId]:
        """Put what was sealed into the store. Raises KeyError for a segment that it was not granted, ValueError for
        bytes of another name."""
        made: list[ShardId] = []
        for shard in self._sealed:
            segment = self._granted[shard.segment]
            store.seal(segment, shard.id, shard.nbytes, shard.hashes)
            del self._granted[shard.segment]
            self.made_in += (segment.capacity,)
            made.append(shard.id)
        return made

    def free(self, store: Store) -> None:
        """It is over: unpin, and give back what was granted and not kept."""
        for shard in self._pinned:
            store.unpin(shard)
        for segment in self._granted.values():
            store.release(segment)
        self._pinned = ()
        self._granted.clear()


def _input(store: Store, ref: ShardRef, first: int, end: int) -> calls.Input:
    hashes = (store.hashes(ref.id) or ()) if store.is_on_disk(ref.id) else ()
    return calls.Input(ref.id, ref.nbytes, store.path(ref.id), first, end, hashes)
