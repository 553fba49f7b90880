"""Story: a task's life, as a node saw it and over all nodes: what happened to it, in which turn, and from what cause.

A turn is some events and the actions that answer them; its number on its node is the cause of all of them. A node
keeps the latest of what it did and, apart from that, of what it heard, so that no peer's talk pushes out its own acts.
Across nodes the join is (run, task) and the ids that messages carry anyway: `in_order` puts what several nodes tell
into an order in which nothing comes before what made it happen (Lamport 1978), whatever their clocks say. Modelled on
the stories of Dask's scheduler. Knows nothing of what is due, of sockets and of wall clocks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from .events import Action, Began, Broke, Drop, Event, Finished, Received, Send, SendThrough, Shed, Start, Stop, Trim
from .names import NodeId, RecordId, RunId, ShardId, ShardRef, TaskKey
from .pipeline.plan import StepPlan
from .run_state.origin import home_of
from .wire.frame import Frame
from .wire.steps import (
    BucketPut,
    ClaimPut,
    HeaderPut,
    Record,
    RecordPut,
    Roster,
    RosterPut,
    RunPut,
    Seal,
    SealPut,
    StealAsk,
    StealGrant,
)

K = TypeVar("K")
V = TypeVar("V")

OWN_ROOM = 16_384  # tasks that entries about what this node did name together; with the rest about 10 MB when full
HEARD_ROOM = 8_192  # and those about what others told it
MAX_TOLD = 8_192  # records, seals, grants and calls that are known to have been told of
MAX_SHARDS = 8_192  # whose task is known, so that it can be told what a drop frees
MAX_CLAIMANTS = 4_096  # nodes, by run, whose last claim is known, so that its renewals are not told again
MAX_ROSTERS = 256
ERROR_CHARACTERS = 200


class What(StrEnum):
    """What happened to a task. `X heard`: a message about X arrived from `peers`; all else was done here."""

    DEALT = "dealt"  # to `peers`, by the roster `join`
    ASKED = "asked"  # `peers` for work, with the request `join`; told where these tasks came of it
    LENT = "lent"  # to `peers`, who had asked
    STOLEN = "stolen"  # from `peers`, who had been asked
    CLAIMED = "claimed"  # `peers` were told that it runs here, or soon will
    CLAIM_HEARD = "claim heard"
    STARTED = "started"  # given to a slot: dealt to this node, stolen, or again
    BEGAN = "began"  # a slot took it
    TRIMMED = "trimmed"  # the later leaves of a running block are somebody else's now
    STOPPED = "stopped"  # given up
    FINISHED = "finished"
    BROKE = "broke"
    RECORDED = "recorded"  # `peers` were told that its outputs lie here: made here, or kept as the back-up copy
    RECORD_HEARD = "record heard"
    PROPOSED = "seal proposed"
    KEPT = "seal kept"
    SEALED = "sealed"
    SEAL_HEARD = "seal heard"
    SHED = "shed"  # an output, for want of room: it may have to be made again
    DROPPED = "dropped"  # an output: it is not needed any more


CAUSES: Final[dict[What, tuple[What, ...]]] = {
    What.LENT: (What.ASKED,),
    What.STOLEN: (What.LENT,),
    What.CLAIM_HEARD: (What.CLAIMED,),
    What.RECORD_HEARD: (What.RECORDED, What.RECORD_HEARD),
    What.KEPT: (What.PROPOSED,),
    What.SEAL_HEARD: (What.SEALED, What.SEAL_HEARD),
}
"""What an entry follows from at the node that it was heard from: the first entry there with one of the same marks."""

_OF_RECORDS: Final = frozenset({What.RECORDED, What.RECORD_HEARD})
TELLING: Final = frozenset({ClaimPut, RecordPut, RosterPut, RunPut, SealPut, StealAsk, StealGrant})
"""Messages of a node from which its story reads what it did."""
TELLING_OTHERS: Final = frozenset({BucketPut, ClaimPut, HeaderPut, RecordPut, RosterPut, RunPut, SealPut, StealGrant})
"""Messages of others from which it reads what these did."""
HAPPENING: Final = frozenset({Received, Began, Finished, Broke, Shed})
ACTING: Final = frozenset({Send, SendThrough, Start, Stop, Trim, Drop})
"""Events and actions that a story may tell of; most are none of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to some tasks of a run, at one node."""

    cause: int  # the number of the turn in which it happened
    at: float  # seconds, by the node's clock
    what: What
    run: RunId
    tasks: tuple[TaskKey, ...]
    peers: tuple[NodeId, ...] = ()
    join: str = ""  # what both ends of a message know it by: a steal request, a seal, a roster
    records: tuple[RecordId, ...] = ()  # of the tasks, in their order, where it is about records
    began: int | None = None  # the number of the turn in which the call began that ends here
    detail: str = ""

    @property
    def marks(self) -> tuple[object, ...]:
        """What a message about it is recognised by at its other end."""
        return self.records if self.what in _OF_RECORDS else (self.join,) if self.join else self.tasks

    def about(self, keys: Collection[TaskKey]) -> Entry | None:
        """The part of this that is about any of these tasks: them, leaves of theirs or blocks with such."""
        chosen = [at for at, task in enumerate(self.tasks) if any(_overlap(task, key) for key in keys)]
        if not chosen:
            return None
        tasks = tuple(self.tasks[at] for at in chosen)
        records = tuple(self.records[at] for at in chosen) if self.records else ()
        return replace(self, tasks=tasks, records=records)


def _overlap(one: TaskKey, other: TaskKey) -> bool:
    return one == other or any(one.holds(single) for single in other.singles)


class _Ring:
    """The latest entries, as many as name `room` tasks together."""

    def __init__(self, room: int) -> None:
        self.entries: deque[Entry] = deque()
        self.forgotten = float("-inf")  # when the last of those happened that had to go
        self._room, self._size = room, 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._size += len(entry.tasks)
        while self._size > self._room and len(self.entries) > 1:
            oldest = self.entries.popleft()
            self._size -= len(oldest.tasks)
            self.forgotten = oldest.at


class Story:
    """One node's, in one life."""

    def __init__(self, me: NodeId, own_room: int = OWN_ROOM, heard_room: int = HEARD_ROOM) -> None:
        self._me = me
        self._own, self._heard = _Ring(own_room), _Ring(heard_room)
        self._calls: dict[int, tuple[int, RunId, TaskKey]] = {}  # not over: the turn that began each, and what it is
        self._asked: dict[RunId, Entry] = {}  # the latest request, as long as nothing came of it
        self._claims: dict[tuple[RunId, NodeId], frozenset[TaskKey]] = {}
        self._said: dict[tuple[What, str], None] = {}  # of records, seals and grants, which are put again and again
        self._rosters: dict[tuple[RunId, int, str], tuple[int, float, Roster]] = {}
        self._shards: dict[ShardId, TaskKey] = {}

    @property
    def forgotten(self) -> float:
        """By the node's clock: of what happened until then, not everything is known here. Minus infinity: it is."""
        return max(self._own.forgotten, self._heard.forgotten)

    def of(self, run: RunId, keys: Collection[TaskKey] = ()) -> list[Entry]:
        """All entries of the run, in the order of their turns; with `keys` what is about these tasks, of one step."""
        found = [entry for ring in (self._own, self._heard) for entry in ring.entries if entry.run == run]
        if keys:
            step = next(iter(keys)).step
            near = [entry for entry in found if any(task.step == step for task in entry.tasks)]  # of thousands
            found = [part for entry in near if (part := entry.about(keys)) is not None]
        return sorted(found, key=lambda entry: entry.cause)

    def dealt(self, run: RunId, task: TaskKey, plan: StepPlan) -> list[Entry]:
        """Whom the rosters of the task's step that passed here deal it to, each at the turn in which it did."""
        out = []
        for (about, step, name), (cause, at, roster) in self._rosters.items():
            home = home_of(run, task, plan, roster) if (about, step) == (run, task.step) else None
            if home is not None:
                out.append(Entry(cause, at, What.DEALT, run, (task,), (home,), name))
        return out

    # A turn ---------------------------------------------------------------------------------------------------------

    def take(self, cause: int, now: float, events: Iterable[Event], actions: Sequence[Action]) -> None:
        """The turn of this number: its events, and the actions that answer them. `now`: as the node was told."""
        for event in events:
            if type(event) in HAPPENING:
                self._happened(cause, now, event)
        sent: dict[int, tuple[Any, list[NodeId]]] = {}  # a message to several members is one object
        for action in actions:
            if type(action) not in ACTING:
                continue
            match action:
                case Send(to, Frame(_, messages)) | SendThrough(_, to, _, Frame(_, messages)):
                    for message in messages:
                        if type(message) in TELLING:
                            sent.setdefault(id(message), (message, []))[1].append(to)
                case Start() | Stop() | Trim():
                    self._call(cause, now, action)
                case Drop(run, shards):
                    tasks = dict.fromkeys(self._shards.pop(shard) for shard in shards if shard in self._shards)
                    if tasks:
                        self._own.add(Entry(cause, now, What.DROPPED, run, tuple(tasks)))
        for message, peers in sent.values():
            self._tell(cause, now, tuple(peers), message)

    def _happened(self, cause: int, now: float, event: Event) -> None:
        match event:
            case Received(source, Frame(_, messages)):
                for message in messages:
                    if type(message) in TELLING_OTHERS:
                        self._learn(cause, now, source, message)
            case Began(call) if call in self._calls and self._is_new(What.BEGAN, str(call)):
                began, run, task = self._calls[call]
                self._own.add(Entry(cause, now, What.BEGAN, run, (task,), began=began))
            case Finished(call, done) if call in self._calls:
                began, run, task = self._calls.pop(call)
                for made in done.made:
                    self._name(made.outputs, TaskKey(task.step, made.stage, made.block or task.part))
                self._own.add(Entry(cause, now, What.FINISHED, run, (task,), began=began))
            case Broke(call, failed) if call in self._calls:
                began, run, task = self._calls.pop(call)
                why = f"{failed.kind}: {failed.error}"[:ERROR_CHARACTERS]
                self._own.add(Entry(cause, now, What.BROKE, run, (task,), began=began, detail=why))
            case Shed(run, shard) if shard in self._shards:
                self._own.add(Entry(cause, now, What.SHED, run, (self._shards[shard],)))

    def _call(self, cause: int, now: float, action: Start | Stop | Trim) -> None:
        match action:
            case Start(call, run, task):
                self._calls[call] = (cause, run, task)
                how = f"{action.origin}, in a fresh engine" if action.fresh else str(action.origin)
                self._own.add(Entry(cause, now, What.STARTED, run, (task,), detail=how))
            case Stop(call) if call in self._calls:
                began, run, task = self._calls.pop(call)
                self._own.add(Entry(cause, now, What.STOPPED, run, (task,), began=began))
            case Trim(call, end) if call in self._calls:
                began, run, task = self._calls[call]
                self._own.add(Entry(cause, now, What.TRIMMED, run, (task,), began=began, detail=f"before leaf {end}"))

    def _tell(self, cause: int, now: float, peers: tuple[NodeId, ...], message: Any) -> None:
        """A message of this node to `peers`."""
        match message:
            case ClaimPut(run, _, units):
                self._claim(self._own, Entry(cause, now, What.CLAIMED, run, units, peers), self._me)
            case RecordPut(run, records):
                self._record(self._own, Entry(cause, now, What.RECORDED, run, (), peers), records)
            case StealAsk(run, request):
                if run not in self._asked or self._asked[run].join != str(request):
                    self._asked[run] = Entry(cause, now, What.ASKED, run, (), peers, str(request))
            case StealGrant(run, request, units=lent):
                if self._is_new(What.LENT, str(request)):
                    tasks = tuple(each.unit for each in lent)
                    self._own.add(Entry(cause, now, What.LENT, run, tasks, peers, str(request)))
            case SealPut():
                is_mine = (What.SEAL_HEARD, message.seal.id) not in self._said  # else it answers who asked for it
                if is_mine:
                    what = What.SEALED if message.settled else What.PROPOSED
                    self._seal(self._own, Entry(cause, now, what, message.run, (), peers), message.seal)
                self._deal(cause, now, message.run, message.roster)
            case RosterPut() | RunPut():
                self._deal(cause, now, message.run, message.roster)

    def _learn(self, cause: int, now: float, source: NodeId, message: Any) -> None:
        """A member's message: what is new of it."""
        peers = (source,)
        match message:
            case ClaimPut(run, _, units):
                self._claim(self._heard, Entry(cause, now, What.CLAIM_HEARD, run, units, peers), source)
            case RecordPut(run, records):
                self._record(self._heard, Entry(cause, now, What.RECORD_HEARD, run, (), peers), records)
            case BucketPut(run, records=held):
                records = tuple(each.record for each in held if (What.RECORDED, each.record.id) not in self._said)
                self._record(self._heard, Entry(cause, now, What.RECORD_HEARD, run, (), peers), records)
            case StealGrant(run, request, units=stolen):
                asked = self._asked.get(run)
                if asked is not None and asked.join == str(request):
                    del self._asked[run]
                    tasks = tuple(each.unit for each in stolen)
                    self._own.add(replace(asked, tasks=tasks))
                    self._own.add(Entry(cause, now, What.STOLEN, run, tasks, peers, asked.join))
            case SealPut(run, seal, settled):
                what = What.SEAL_HEARD if settled else What.KEPT
                self._seal(self._heard, Entry(cause, now, what, run, (), peers), seal)
                self._deal(cause, now, run, message.roster)
            case HeaderPut(run, seal=made_by):
                if made_by is not None:
                    self._seal(self._heard, Entry(cause, now, What.SEAL_HEARD, run, (), peers), made_by)
                self._deal(cause, now, run, message.roster)
            case RosterPut() | RunPut():
                self._deal(cause, now, message.run, message.roster)

    # What is put again and again, and told once ---------------------------------------------------------------------

    def _claim(self, ring: _Ring, entry: Entry, claimant: NodeId) -> None:
        known = self._claims.pop((entry.run, claimant), frozenset())
        _remember(self._claims, (entry.run, claimant), frozenset(entry.tasks), MAX_CLAIMANTS)
        fresh = tuple(task for task in entry.tasks if task not in known)
        if fresh:
            ring.add(replace(entry, tasks=fresh))

    def _record(self, ring: _Ring, entry: Entry, records: Sequence[Record]) -> None:
        fresh = [record for record in records if self._is_new(entry.what, record.id)]
        for record in fresh:
            self._name(record.outputs, record.task)
        if fresh:
            tasks, names = tuple(record.task for record in fresh), tuple(record.id for record in fresh)
            ring.add(replace(entry, tasks=tasks, records=names))

    def _seal(self, ring: _Ring, entry: Entry, seal: Seal) -> None:
        is_back = entry.what is What.SEAL_HEARD and (What.SEALED, seal.id) in self._said  # from who was told of it here
        if not is_back and self._is_new(entry.what, seal.id):
            tasks, names = tuple(record.task for record in seal.entries), tuple(record.id for record in seal.entries)
            detail = f"{seal.kind}, generation {seal.generation}"
            ring.add(replace(entry, tasks=tasks, join=seal.id, records=names, detail=detail))

    def _deal(self, cause: int, now: float, run: RunId, roster: Roster | None) -> None:
        if roster is not None and (run, roster.step, roster.id) not in self._rosters:
            _remember(self._rosters, (run, roster.step, roster.id), (cause, now, roster), MAX_ROSTERS)

    def _is_new(self, what: What, name: str) -> bool:
        if (what, name) in self._said:
            return False
        _remember(self._said, (what, name), None, MAX_TOLD)
        return True

    def _name(self, outputs: Iterable[tuple[str, ShardRef]], task: TaskKey) -> None:
        for _, ref in outputs:
            _remember(self._shards, ref.id, task, MAX_SHARDS)


def _remember(known: dict[K, V], key: K, value: V, room: int) -> None:
    known[key] = value
    while len(known) > room:
        del known[next(iter(known))]


# What several nodes tell ------------------------------------------------------------------------------------------


def in_order(stories: Mapping[NodeId, Sequence[Entry]]) -> list[tuple[NodeId, Entry]]:
    """The entries of several nodes, each node's in the order of its turns, such that none comes before one that it
    follows from; what that leaves open is decided by `at`, which is to be of one clock. What nodes derived alike
    (`dealt`) is told once."""
    lines = [(node, entry) for node, entries in sorted(stories.items()) for entry in entries]
    waits, followers = _happened_before(lines)
    ready = [(entry.at, index) for index, (_, entry) in enumerate(lines) if not waits[index]]
    heapq.heapify(ready)
    out: list[tuple[NodeId, Entry]] = []
    left = set(range(len(lines)))
    while left:
        if not ready:  # a node forgot what came first there, so that what it told looks like its own cause
            heapq.heappush(ready, min((lines[index][1].at, index) for index in left))
        _, index = heapq.heappop(ready)
        if index not in left:
            continue
        left.remove(index)
        out.append(lines[index])
        for after in followers[index]:
            waits[after] -= 1
            if not waits[after]:
                heapq.heappush(ready, (lines[after][1].at, after))
    return _once(out)


def _happened_before(lines: Sequence[tuple[NodeId, Entry]]) -> tuple[list[int], list[list[int]]]:
    """By line how many lines it waits for, and which wait for it."""
    first: dict[tuple[NodeId, What, RunId, object], int] = {}
    for index, (node, entry) in enumerate(lines):
        for mark in entry.marks:
            first.setdefault((node, entry.what, entry.run, mark), index)
    waits, followers = [0] * len(lines), [list[int]() for _ in lines]
    for index, (node, entry) in enumerate(lines):
        before = {index - 1} if index and lines[index - 1][0] == node else set[int]()
        for source in entry.peers:
            causes = [(source, what, entry.run, mark) for what in CAUSES.get(entry.what, ()) for mark in entry.marks]
            found = [first[each] for each in causes if each in first]
            before |= {min(found)} if found else set()
        waits[index] = len(before)
        for each in before:
            followers[each].append(index)
    return waits, followers


def _once(lines: Iterable[tuple[NodeId, Entry]]) -> list[tuple[NodeId, Entry]]:
    out, dealt = [], set[str]()
    for node, entry in lines:
        if entry.what is What.DEALT:
            if entry.join in dealt:
                continue
            dealt.add(entry.join)
        out.append((node, entry))
    return out
