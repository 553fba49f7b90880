"""The slots of one pretended node: works that run there, works that wait for one, and how each ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from ...events import Began, Broke, Finished, Reached, SlotsChanged, Start
from ...names import Part, RunId, ShardId
from ...shards.space import Priority
from ...versions.saved import Saved
from ...work import (
    BlockWork,
    Done,
    Failed,
    FailureKind,
    SaveWork,
    at_once,
    inputs_of,
    is_host_work,
    is_short,
    made_by,
)
from .disk import Disk
from .health import Health
from .provenance import bytes_of
from .schedule import Life
from .store import Store
from .work import Engines

POISON = "poison"  # what its works say when they break
BREAKS_AFTER_S = 0.005  # how fast a broken engine gives a work back


@dataclass(frozen=True)
class Site:
    """What all machines of a world share. `poison`: (a chain's first stage, part) -> how every work on it breaks."""

    engines: Mapping[RunId, Engines]
    poison: Mapping[tuple[str, Part], FailureKind]


class Slots:
    """One life's calls. Those that wait are taken in the order in which they were begun: by an empty slot, or by one
    that works on partitions of the same run and may have more at once."""

    def __init__(
        self, count: int, host_count: int, life: Life, site: Site, store: Store, disk: Disk, health: Health
    ) -> None:
        """`host_count`: those for works on shards alone; 0: they take the others."""
        self.calls: dict[int, Start] = {}  # those that run, and those that wait
        self._counts, self._devices = {False: count, True: host_count}, count
        self._life = life
        self._site = site
        self._store = store
        self._disk = disk
        self._health = health
        self._running: dict[int, tuple[bool, int]] = {}  # call -> its slot: whether it is of the host, which one
        self._trims: dict[int, int] = {}  # call -> leaf before which its block is to end
        self._made: dict[int, Counter[tuple[RunId, ShardId]]] = {}  # by calls the node is yet to hear of

    @property
    def has_devices(self) -> bool:
        """Whether any slot works that has a device."""
        return self._counts[False] > 0

    @property
    def waiting(self) -> list[Start]:
        """Works that no slot has taken yet, in the order in which they were begun."""
        return [start for call, start in self.calls.items() if call not in self._running]

    def begin(self, start: Start) -> None:
        """Queue a work. Its inputs are pinned from here on, as a daemon pins what a call maps."""
        if not self._counts[self._kind(start)] and not isinstance(start.work, SaveWork):
            self._life.tell(Broke(start.call, Failed("stopped", "its device failed")))
            return
        self.calls[start.call] = start
        self._occupy()

    def lose_devices(self) -> None:
        """No slot with a device works any more: what runs there breaks, and what waits for one."""
        self._counts[False] = 0
        self._life.tell(SlotsChanged(0, "its device failed"))
        for start in [start for start in self.calls.values() if not self._kind(start)]:
            self._forget(start.call)
            self._life.tell(Broke(start.call, Failed("stopped", "its device failed")))

    def regain_devices(self) -> None:
        self._counts[False] = self._devices
        self._life.tell(SlotsChanged(self._devices))

    def stop(self, call: int) -> None:
        self._forget(call)
        self._occupy()

    def trim(self, call: int, end: int) -> None:
        """The call's block is to end before this leaf."""
        if call in self.calls:
            self._trims[call] = end

    def heard(self, call: int) -> None:
        """The node takes the call's end: from now on it answers for what the call made."""
        self._store.hand_over(self._made.pop(call))

    def pinned(self) -> set[ShardId]:
        """What calls read: it stays where it is."""
        return {ref.id for start in self.calls.values() for ref, _, _ in inputs_of(start.work)}

    def _forget(self, call: int) -> None:
        self.calls.pop(call, None)
        self._running.pop(call, None)
        self._trims.pop(call, None)

    def _occupy(self) -> None:
        """Let the first of the waiting works run in the slots that take them. None passes another of its kind."""
        held_up: set[bool] = set()
        for start in self.waiting:
            place = self._place(start)
            if place is None or place[0] in held_up:
                held_up.add(self._kind(start))
                continue
            self._running[start.call] = place
            self._life.tell(Began(start.call))
            seconds, hang_s = self._seconds(start), self._health.hang()
            if hang_s is not None:
                hangs = Failed("engine", f"no progress for {hang_s:g} s", start.task.stage)
                self._life.after(hang_s, partial(self._done, start, failed=hangs))
            elif self._health.is_broken:
                self._life.after(BREAKS_AFTER_S, partial(self._done, start))
            elif isinstance(start.work, BlockWork):
                each = seconds / (start.work.end - start.work.first)
                self._leaf(start, start.work.first, start.work.end, each)
            else:
                self._life.after(seconds, partial(self._done, start))

    def _seconds(self, start: Start) -> float:
        return self._site.engines[start.run].seconds(start.work) / self._health.speed

    def _place(self, start: Start) -> tuple[bool, int] | None:
        """The slot that takes this work: one that has least to do."""
        kind = self._kind(start)
        least = isinstance(start.work, SaveWork)  # which a slot without its device takes, too
        able = []
        for place in ((kind, index) for index in range(max(least, self._counts[kind]))):
            there = self._together(place)
            most = min(at_once(each.work) for each in (start, *there))
            if not there or (len(there) < most and all(each.run == start.run for each in there)):
                able.append((len(there), place))
        return min(able)[1] if able else None

    def _together(self, place: tuple[bool, int]) -> list[Start]:
        """What a slot works on."""
        return [self.calls[call] for call, where in self._running.items() if where == place]

    def _kind(self, start: Start) -> bool:
        """Whether it runs in the host's own slots."""
        return self._counts[True] > 0 and is_host_work(start.work)

    def _leaf(self, start: Start, leaf: int, end: int, seconds: float) -> None:
        """Begin with a leaf of a block; end the call where the block ends by now."""
        if self.calls.get(start.call) is not start:
            return
        if leaf >= self._trims.get(start.call, end):
            self._done(start, leaf)
            return
        self._life.tell(Reached(start.call, leaf))
        self._life.after(seconds, lambda: self._leaf(start, leaf + 1, end, seconds))

    def _done(self, start: Start, end: int | None = None, failed: Failed | None = None) -> None:
        """A work is over; `end`: of a block, the leaf before which it stopped. `failed`: how it was given up."""
        if self.calls.get(start.call) is not start:
            return  # stopped meanwhile
        failed = failed or self._health.fail(start, self._disk.damaged) or self._poisoned(start)
        event = Broke(start.call, failed) if failed else self._finish(start, end)
        place = self._running[start.call]
        self._forget(start.call)
        beside = self._together(place) if failed is not None and failed.kind == "engine" else []
        for other in beside:  # they ended with their engine
            self._forget(other.call)
        self._occupy()
        self._life.tell(event)
        for other in beside:
            self._life.tell(Broke(other.call, Failed("stopped", "its engine ended for another task")))

    def _poisoned(self, start: Start) -> Failed | None:
        kind = self._site.poison.get((start.task.stage, start.task.part))
        return None if kind is None else Failed(kind, POISON, start.task.stage)

    def _finish(self, start: Start, end: int | None) -> Finished | Broke:
        """What a work gives, if there is room for it."""
        done: Done = self._site.engines[start.run].run(start.work, end, self._health.numerics)
        made = [ref for each in done.made for _, ref in each.outputs]
        if isinstance(start.work, SaveWork) and self._disk.is_full:
            return Broke(start.call, Failed("full", "this disk takes nothing"))
        priority = Priority(start.run, start.task.step, made_by(start.work))
        if not self._store.take_all(self._life.now, priority, made, self.pinned()):
            return Broke(start.call, Failed("full", "no room"))
        if isinstance(start.work, SaveWork):
            self._save(start.work)
        self._made[start.call] = self._store.put_made(start.run, made)
        short = tuple((ref.id, bytes_of(ref)) for ref in made) if is_short(start.work, made) else ()
        return Finished(start.call, replace(done, short=short))

    def _save(self, work: SaveWork) -> None:
        pipeline = self._site.engines[work.run].pipeline
        self._disk.save(Saved(work.run, pipeline.id, pipeline.plan_version, pipeline.name, work.header, ()))
