"""The slots of this machine: who runs which call, what it may read and write, and what happens when it dies.

A slot is one engine child. It does one call at a time; further calls wait in the order in which they came. A child
that exits, falls silent or makes no progress is killed; its call ends as Broke(kind `engine`), its grants go back to
the store, and the next call starts a fresh one. Outputs enter the store only with the Finished that names them, so a
child that dies half-way leaves nothing. Knows nothing of why a work is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from dflow_protocols.events import Began, Broke, Finished, Reached, Report, Start
from dflow_protocols.names import RunId, ShardId, ShardRef, TaskKey
from dflow_protocols.shards.space import Place
from dflow_protocols.work import ApplyWork, Failed, InitWork, LoadWork, Work, inputs_of

from ..process.host import Host
from ..shards.room import Room
from ..shards.segment import Full, Segment
from ..shards.spill import size_text
from ..shards.store import Store
from . import calls
from .blame import OUTSIDE, blamed
from .devices import Devices, engine_environment
from .process import ChildCommand, EngineChild

CHECK_INTERVAL_S = 1.0  # how often silence and progress are looked at, while a child lives
START_LIMIT_S = 180.0  # importing a framework from a cold disk on a busy machine; then the start counts as failed
GIVE_UP_LIMIT_S = 10.0  # what a child that was told to give up may take before it is killed
QUIT_LIMIT_S = 2.0
STUCK_SHARE = 0.2  # of the time that a call may make no progress, after which it is told
STATE_SHARE = (
    4  # a trained model's parameters, both moments and a gradient: 16 bytes a parameter, in sizes of the first
)
ENGINE_MODULE = "dflowd.child.process"


@dataclass(frozen=True, slots=True)
class RunBrief:
    """What a child must know of a run. `engine`: which kind of engine the run asks for."""

    spec: bytes
    base: str
    folder: str
    engine: str


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What does not change while the daemon runs. `silence_s`, `stall_s`: as in the section [engine] of its
    configuration. `folder`: where children's sockets and last words lie; `environment`: what they are started with."""

    slots: int
    devices: Devices
    folder: Path
    environment: Mapping[str, str]
    silence_s: float
    stall_s: float


@dataclass(slots=True)
class _Call:
    """A call from its Start to its end."""

    id: int
    run: RunId
    task: TaskKey
    work: Work
    brief: RunBrief
    fresh: bool = False
    end: int | None = None  # of a block that was trimmed
    pinned: tuple[ShardId, ...] = ()
    segments: dict[int, Segment] = field(default_factory=dict)  # granted, not yet in the store
    sealed: list[calls.SealedShard] = field(default_factory=list)
    given_up_s: float | None = None


@dataclass(slots=True)
class _Slot:
    """One slot and its child. `heard_s`, `moved_s`: when it last said anything, when its progress last grew."""

    index: int
    child: EngineChild | None = None
    engine: str = ""
    ready: calls.Ready | None = None
    call: _Call | None = None
    heard_s: float = 0.0
    moved_s: float = 0.0
    progress: int = -1
    used: bool = False  # whether its child has had a call
    is_owed_room: bool = False  # what it asked for was not answered yet: the daemon is late, not the child
    dismissed_s: float | None = None  # when it was asked to exit
    verdict: str = ""  # why it was killed
    is_stalled: bool = False  # and whether for want of progress
    is_stuck: bool = False  # whether it was told that its call makes no progress


class Supervisor:
    """Runs the slots. All methods are for the loop's thread."""

    def __init__(
        self,
        host: Host,
        settings: SupervisorSettings,
        context: zmq.Context[zmq.Socket[bytes]],
        store: Store,
        room: Room,
        brief: Callable[[RunId], RunBrief | None],
    ) -> None:
        """`brief`: what a child must know of a run; None of one that is unknown here."""
        self._host, self._settings, self._context, self._store, self._room = host, settings, context, store, room
        self._brief, self._post, self._clock = brief, host.post, host.clock
        self._slots = [_Slot(index) for index in range(settings.slots)]
        self._queue: deque[_Call] = deque()
        self._untold: dict[int, tuple[RunId, list[ShardId]]] = {}  # what finished calls made, until the node hears
        self._births = 0
        self._check_handle: asyncio.TimerHandle | None = None
        self._check_due_s = 0.0
        folder = settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*folder.glob("*.sock"), *folder.glob("*.err")]:  # of a daemon that was killed
            leftover.unlink(missing_ok=True)

    # What the driver asks -------------------------------------------------------------------------------------------

    def start(self, asked: Start) -> None:
        """Do a work when a slot is free. Began tells when a slot takes it, and again when a child that had to start for
        it is ready; it is answered by Finished or Broke."""
        brief = self._brief(asked.run)
        if brief is None:
            self._post(Broke(asked.call, Failed("lost", "the run is unknown here", blame=asked.task.stage)))
            return
        self._queue.append(_Call(asked.call, asked.run, asked.task, asked.work, brief, asked.fresh))
        self._fill()

    def stop(self, call: int) -> None:
        """Give a call up; nothing of it is answered any more."""
        for waiting in self._queue:
            if waiting.id == call:
                self._queue.remove(waiting)
                return
        for slot in self._slots:
            if slot.call is not None and slot.call.id == call and slot.call.given_up_s is None:
                slot.call.given_up_s = self._clock()
                if slot.child is not None:
                    slot.child.send(calls.GiveUp(call))

    def trim(self, call: int, end: int) -> None:
        """A block of leaves shall end before leaf `end`, if it has not begun that one."""
        running = (slot for slot in self._slots if slot.call is not None and slot.call.id == call)
        for slot in running:
            if slot.child is not None:
                slot.child.send(calls.Trim(call, end))
        for waiting in self._queue:
            if waiting.id == call:
                waiting.end = end

    def close(self) -> None:
        """Kill every child and give back what they were granted."""
        if self._check_handle is not None:
            self._check_handle.cancel()
        self._queue.clear()
        for slot in self._slots:
            if slot.child is not None:
                slot.child.close()
            if slot.call is not None:
                self._free(slot.call)
            slot.child, slot.call = None, None

    def standing(self) -> dict[str, Any]:
        """`slots`: one map a slot, what it runs, in which process, with which numerics; `waiting`: calls in the
        queue."""
        slots = [
            {
                "slot": slot.index,
                "engine": slot.engine,
                "pid": slot.child.pid if slot.child is not None else 0,
                "numerics": slot.ready.numerics if slot.ready is not None else "",
                "task": str(slot.call.task) if slot.call is not None else "",
                "stage": slot.child.doing.stage if slot.child is not None else "",
                "doing": slot.child.doing.words if slot.child is not None else "",
            }
            for slot in self._slots
        ]
        return {"slots": slots, "waiting": len(self._queue)}

    def acknowledge(self, call: int) -> None:
        """The node hears now how this call ended."""
        if call in self._untold:
            self._store.told(*self._untold.pop(call))

    # Calls and slots ------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give waiting calls to idle slots, preferring a child that already is of the right kind."""
        while self._queue:
            first = self._queue[0]
            engine = first.brief.engine
            idle = [slot for slot in self._slots if slot.call is None and slot.dismissed_s is None]
            if not idle:
                return
            slot = min(idle, key=lambda slot: (slot.engine != engine, slot.child is not None, slot.index))
            if slot.child is not None and (slot.engine != engine or (first.fresh and slot.used)):
                slot.dismissed_s = self._clock()  # _on_exit comes back here
                slot.child.quit()
                return
            self._begin(slot, self._queue.popleft())

    def _begin(self, slot: _Slot, call: _Call) -> None:
        inputs = self._pin_inputs(call)
        if inputs is None:
            return
        if slot.child is None and not self._spawn(slot, call):
            return
        assert slot.child is not None
        now = self._clock()
        slot.call, slot.moved_s, slot.is_owed_room = call, now, False
        brief = call.brief
        slot.child.send(calls.Call(call.id, brief.spec, brief.base, brief.folder, call.work, inputs))
        slot.used = True
        if call.end is not None:
            slot.child.send(calls.Trim(call.id, call.end))
        self._tell_begin(call)
        self._watch()

    def _tell_begin(self, call: _Call) -> None:
        if call.given_up_s is None:
            self._post(Began(call.id))

    def _pin_inputs(self, call: _Call) -> tuple[calls.Input, ...] | None:
        """The paths of what the call reads, pinned while it runs; None if one is gone, which is then posted."""
        ranges = inputs_of(call.work)
        for ref, first, end in ranges:
            if not self._store.has_range(ref.id, first, end):
                text = f"chunks {first} to {end} are not here"
                self._post(Broke(call.id, Failed("lost", text, blame=ref.id)))
                return None
        call.pinned = tuple(ref.id for ref, _, _ in ranges)
        for shard in call.pinned:
            self._store.pin(shard)
        return tuple(self._input(*each) for each in ranges)

    def _input(self, ref: ShardRef, first: int, end: int) -> calls.Input:
        hashes = (self._store.hashes(ref.id) or ()) if self._store.is_on_disk(ref.id) else ()
        return calls.Input(ref.id, ref.nbytes, self._store.path(ref.id), first, end, hashes)

    def _spawn(self, slot: _Slot, call: _Call) -> bool:
        self._births += 1
        slot.engine, slot.ready, slot.verdict, slot.progress = call.brief.engine, None, "", -1
        slot.used = False
        slot.heard_s = self._clock()
        command = ChildCommand(
            ("-P", "-m", ENGINE_MODULE, "--engine", slot.engine),  # no module of the folder we happen to be in
            engine_environment(self._settings.devices, slot.index, self._settings.environment),
            self._settings.folder,
            f"slot{slot.index}-{self._births}",
        )
        try:
            slot.child = EngineChild(
                self._host.loop,
                self._context,
                command,
                lambda message: self._on_message(slot, message),
                lambda status, words: self._on_exit(slot, status, words),
            )
        except (OSError, zmq.ZMQError) as error:
            self._free(call)
            self._post(Broke(call.id, Failed("engine", f"cannot start an engine: {error}", blame=call.task.stage)))
            return False
        self._host.report(Report("engine.started", {"slot": slot.index, "engine": slot.engine, "pid": slot.child.pid}))
        return True

    def _end(self, slot: _Slot) -> _Call | None:
        """The slot's call is over: unpin, and give back what was granted and not kept. None if it was given up."""
        call, slot.call = slot.call, None
        if call is None:
            return None
        self._free(call)
        return call if call.given_up_s is None else None

    def _free(self, call: _Call) -> None:
        for shard in call.pinned:
            self._store.unpin(shard)
        call.pinned = ()
        for segment in call.segments.values():
            self._store.release(segment)
        call.segments.clear()

    # What children say ----------------------------------------------------------------------------------------------

    def _on_message(self, slot: _Slot, message: calls.FromChild) -> None:
        now = self._clock()
        slot.heard_s = now
        match message:
            case calls.Ready():
                slot.ready, slot.moved_s = message, now
                if slot.call is not None:  # what the start took is no cost of the call
                    self._tell_begin(slot.call)
                self._host.report(Report("engine.ready", {"slot": slot.index, "numerics": message.numerics}, "debug"))
            case calls.Beat():
                if message.progress != slot.progress:
                    slot.progress, slot.moved_s = message.progress, now
            case Reached():
                slot.moved_s = now
                if slot.call is not None and slot.call.id == message.call:
                    self._post(message)
            case calls.Grant():
                slot.moved_s = now
                self._grant(slot, message)
            case calls.Sealed() if slot.call is not None and slot.call.id == message.call:
                slot.call.sealed.extend(message.shards)
            case Finished() if slot.call is not None and slot.call.id == message.call:
                self._finish(slot, message)
            case Broke() if slot.call is not None and slot.call.id == message.call:
                call = self._end(slot)
                if message.failed.kind == "lost" and self._store.is_on_disk(ShardId(message.failed.blame)):
                    self._store.spoil(ShardId(message.failed.blame))
                if message.failed.kind == "engine" and slot.child is not None:
                    slot.verdict = "its call failed"  # what an engine's failure left behind is not worth trusting
                    slot.child.kill()
                    slot.dismissed_s = now
                self._answer(call, message)
            case _:
                pass  # about a call that is over

    def _grant(self, slot: _Slot, message: calls.Grant) -> None:
        call, child = slot.call, slot.child
        assert child is not None
        if call is None or call.id != message.call:
            child.send(calls.Refused(message.call, "the call is over"))
            return
        least = sum(message.sizes) * (STATE_SHARE if isinstance(call.work, InitWork) else 1)
        if not self._store.can_hold(least):
            why = f"{size_text(least)} of room are needed at once; {self._store.capacity}"
            child.send(calls.Refused(message.call, why, True))
            return
        is_state = isinstance(call.work, InitWork | ApplyWork | LoadWork)
        place = Place(call.run, call.task.step)
        slot.is_owed_room = True
        self._room.grant(place, message.sizes, is_state, partial(self._granted, slot, call))

    def _granted(self, slot: _Slot, call: _Call, granted: list[Segment] | Full) -> None:
        """Space was found for what a call asked for, or was not; the call may be over by now."""
        if slot.call is call:
            slot.is_owed_room, slot.moved_s = False, self._clock()
        if slot.call is not call or slot.child is None:
            for segment in () if isinstance(granted, Full) else granted:
                self._store.release(segment)
        elif isinstance(granted, Full):
            slot.child.send(calls.Refused(call.id, str(granted)))
        else:
            call.segments.update({segment.number: segment for segment in granted})
            answer = tuple(calls.Segment(segment.number, segment.nbytes, segment.path) for segment in granted)
            slot.child.send(calls.Granted(call.id, answer))

    def _finish(self, slot: _Slot, message: Finished) -> None:
        call = slot.call
        assert call is not None
        wrong = ""
        made: list[ShardId] = []
        if call.given_up_s is None:
            try:
                for shard in call.sealed:
                    self._store.seal(call.segments[shard.segment], shard.id, shard.nbytes, shard.hashes)
                    del call.segments[shard.segment]
                    made.append(shard.id)
            except (KeyError, ValueError) as error:  # a segment it was not granted, or bytes of another name
                wrong = f"it sealed what it may not: {error}"
            self._store.made(call.run, made)
            self._untold[call.id] = (call.run, made)
        failure = Broke(call.id, Failed("engine", wrong, blame=call.task.stage))
        self._answer(self._end(slot), failure if wrong else message)

    def _answer(self, call: _Call | None, end: Finished | Broke | None) -> None:
        """A slot is free. What begins in it is told first: who hears of an end then knows what waits no more."""
        self._fill()
        if call is not None and end is not None:
            self._post(end)

    def _on_exit(self, slot: _Slot, status: int, words: str) -> None:
        reason = slot.verdict or words
        dismissed = slot.dismissed_s is not None
        assert slot.child is not None
        doing, is_own = slot.child.doing, not slot.verdict and -status not in OUTSIDE
        slot.child, slot.dismissed_s = None, None
        call = self._end(slot)
        if not dismissed:
            task = str(call.task) if call is not None else ""
            fields = {"slot": slot.index, "reason": reason, "task": task, "doing": doing.words}
            self._host.report(Report("engine.died", fields, "warning"))
        end = None
        if call is not None:
            end = Broke(call.id, blamed(doing, reason, slot.is_stalled, is_own, doing.stage or call.task.stage))
        slot.is_stalled = False
        self._answer(call, end)

    # The watch ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._check_handle is None:
            self._check_due_s = self._clock() + CHECK_INTERVAL_S
            self._check_handle = self._host.loop.call_later(CHECK_INTERVAL_S, self._check)

    def _check(self) -> None:
        self._check_handle = None
        now = self._clock()
        asleep_s = now - self._check_due_s  # while this process was stopped no child could be heard
        for slot in self._slots:
            if slot.child is None:
                continue
            if asleep_s > CHECK_INTERVAL_S:
                slot.heard_s, slot.moved_s = slot.heard_s + asleep_s, slot.moved_s + asleep_s
            self._mind_stuck(slot, now)
            verdict = self._verdict(slot, now)
            if verdict and not slot.verdict:
                slot.verdict = verdict
                slot.child.kill()
        if any(slot.child is not None for slot in self._slots):
            self._watch()

    def _verdict(self, slot: _Slot, now: float) -> str:
        """Why a child must be killed, or nothing."""
        silent_s = now - slot.heard_s
        if slot.ready is None:
            return f"not ready after {silent_s:.0f} s" if silent_s > START_LIMIT_S else ""
        if slot.dismissed_s is not None:
            return "it did not exit when asked" if now - slot.dismissed_s > QUIT_LIMIT_S else ""
        assert slot.child is not None
        held_up = slot.call is not None and slot.child.doing.is_user  # user code may keep the interpreter to itself
        if silent_s > self._settings.silence_s and (not held_up or slot.child.is_stopped):
            return f"silent for {silent_s:.0f} s"
        if slot.call is None:
            return ""
        if slot.call.given_up_s is not None and now - slot.call.given_up_s > GIVE_UP_LIMIT_S:
            return "it did not give its call up"
        if _still_s(slot, now) > self._settings.stall_s:
            slot.is_stalled = True
            return (
                f"no progress for {self._settings.stall_s:g} s (engine.stall_s)"  # like each time: errors are compared
            )
        return ""

    def _mind_stuck(self, slot: _Slot, now: float) -> None:
        """Tell of a call that makes no progress long before it is given up, and when it moves again."""
        call, still_s = slot.call, _still_s(slot, now)
        if call is not None and slot.ready is not None and slot.child is not None:
            is_stuck = still_s > self._settings.stall_s * STUCK_SHARE
            if is_stuck and not slot.is_stuck:
                doing = slot.child.doing
                fields = {
                    "run": call.run,
                    "slot": slot.index,
                    "task": str(call.task),
                    "doing": doing.words or "it worked",
                }
                times = {"seconds": round(still_s), "limit_s": self._settings.stall_s}
                stage = doing.stage or call.task.stage
                self._host.report(Report("engine.stuck", {**fields, "stage": stage, **times}, "warning"))
            slot.is_stuck = slot.is_stuck or is_stuck
        if slot.is_stuck and (call is None or still_s <= self._settings.stall_s * STUCK_SHARE):
            slot.is_stuck = False
            self._host.report(Report("engine.unstuck", {"slot": slot.index}))


def _still_s(slot: _Slot, now: float) -> float:
    """For how long its call makes no progress; while the daemon looks for room, that is not the call's."""
    return 0.0 if slot.is_owed_room else now - slot.moved_s
