"""The slots of this machine: which call a slot takes, what its child is answered, and what happens when that dies.

Calls wait in one queue, in the order in which they came; a slot takes one, or as many partitions of a run as their
chain may have at once. Where the host has slots of its own, work on shards alone goes there, and passes what waits for
a device. A child that exits, falls silent or makes no progress is killed; its calls end as Broke, their grants go back
to the store, and the next call starts a fresh one. Outputs enter the store only with the Finished that names them, so a
child that dies half-way leaves nothing. Knows nothing of why a work is done.

Which of several calls a child died of is told by what it did last. That one is broken (kind `engine` or `user`), the
others are stopped. Where it was a pass for several, all of them are stopped, and each is tried alone the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import zmq

from dflow_protocols.events import Began, Broke, Finished, Reached, Report, SlotsChanged, Start
from dflow_protocols.names import RunId, ShardId, TaskKey
from dflow_protocols.work import ChainWork, Done, Failed, Work, is_short

from ..process.host import Host
from ..shards.room import Room
from ..shards.segment import Full, Segment
from ..shards.spill import size_text
from ..shards.store import Store
from . import calls
from .blame import OUTSIDE, blamed, suspects
from .devices import engine_environment, is_lost
from .open_call import OpenCall
from .process import ChildCommand, EngineChild
from .settings import RunBrief, SupervisorSettings
from .slot import Slot

CHECK_INTERVAL_S = 1.0  # how often silence and progress are looked at, while a child lives
ENGINE_MODULE = "dflowd.child.process"
SMALL_BYTES = 1 << 16  # room for an output that is given before it is asked for
MOST_SUSPECTS = 256  # tasks that are done alone, since an engine died that had them among others


class Supervisor:
    """Runs the slots. All methods are for the loop's thread."""

    def __init__(
        self,
        host: Host,
        settings: SupervisorSettings,
        context: zmq.Context[zmq.Socket[bytes]],
        store: Store,
        room: Room,
        brief: Callable[[RunId, Work], RunBrief | None],
    ) -> None:
        """`brief`: what a child must know of a run for a work; None of one that is unknown here."""
        self._host, self._settings, self._context, self._store, self._room = host, settings, context, store, room
        self._brief, self._post, self._clock = brief, host.post, host.clock
        self._slots = [
            Slot(index, settings, is_host=index >= settings.slots)
            for index in range(settings.slots + settings.host_slots)
        ]
        self._queue: deque[OpenCall] = deque()
        self._suspects: deque[tuple[RunId, TaskKey]] = deque(maxlen=MOST_SUSPECTS)
        self._untold: dict[int, tuple[RunId, list[ShardId]]] = {}  # what finished calls made, until the node hears
        self._made_lately: tuple[TaskKey | None, tuple[int, ...]] = None, ()  # by which call, in rooms of which sizes
        self._births = 0
        self._check_handle: asyncio.TimerHandle | None = None
        self._check_due_s = 0.0
        folder = settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*folder.glob("*.sock"), *folder.glob("*.err")]:  # of a daemon that was killed
            leftover.unlink(missing_ok=True)

    # What the driver asks -------------------------------------------------------------------------------------------

    def start(self, asked: Start) -> None:
        """Do a work when a slot takes it. Began tells when that is, and again when a child that had to start for it is
        ready; it is answered by Finished or Broke."""
        brief = self._brief(asked.run, asked.work)
        if brief is None:
            self._post(Broke(asked.call, Failed("lost", "the run is unknown here", blame=asked.task.stage)))
            return
        if isinstance(asked.work, ChainWork) and (asked.run, asked.task) in self._suspects:
            asked = replace(asked, work=replace(asked.work, at_once=1))
        self._queue.append(OpenCall(asked, brief))
        self._fill()
        self._refuse_hopeless()

    def stop(self, call: int) -> None:
        """Give a call up; nothing of it is answered any more."""
        waiting = self._waiting(call)
        if waiting is not None:
            self._queue.remove(waiting)
            return
        for slot in self._slots:
            if call in slot.calls:
                slot.give_up(slot.calls[call], self._clock())

    def trim(self, call: int, end: int) -> None:
        """A block of leaves shall end before leaf `end`, if it has not begun that one."""
        waiting = self._waiting(call)
        if waiting is not None:
            waiting.trim(end)
        for slot in self._slots:
            if call in slot.calls:
                slot.trim(slot.calls[call], end)

    def drain(self, gpu: int, why: str) -> None:
        """A GPU failed: its slots take nothing more, and what runs there is given back. `why`: as it follows the GPU's
        name."""
        hit = [slot for slot in self._slots if gpu in self._gpus_of(slot) and not slot.lost]
        if not hit:
            return
        left = [call for slot in hit for call in slot.drain(f"GPU {gpu} {why}", self._clock())]
        for slot in hit:
            fields = {"slot": slot.index, "device": f"GPU {gpu}", "why": why}
            self._host.report(Report("slot.drained", fields, "error"))
        self._tell_slots()  # before its calls end: a node without slots blames no task for that
        for call in left:
            self._post(Broke(call.id, Failed("stopped", hit[0].lost)))
        self._refuse_hopeless()

    def restore(self, gpu: int) -> None:
        """A GPU answers again."""
        hit = [slot for slot in self._slots if gpu in self._gpus_of(slot) and slot.lost]
        for slot in hit:
            slot.restore(self._clock())
            self._host.report(Report("slot.restored", {"slot": slot.index, "device": f"GPU {gpu}"}))
        if hit:
            self._tell_slots()
            self._fill()

    def acknowledge(self, call: int) -> None:
        """The node hears now how this call ended."""
        if call in self._untold:
            self._store.told(*self._untold.pop(call))

    def standing(self) -> dict[str, Any]:
        """`slots`: one map a slot, what it runs, in which process, with which numerics; `waiting`: calls that no
        slot has begun."""
        waiting = len(self._queue) + sum(slot.waiting for slot in self._slots)
        return {"slots": [slot.row() for slot in self._slots], "waiting": waiting}

    def drained(self) -> list[dict[str, Any]]:
        """Slots that take nothing, `why` with the name of the device."""
        return [{"slot": slot.index, "why": slot.lost} for slot in self._slots if slot.lost]

    def close(self) -> None:
        """Kill every child and give back what they were granted."""
        if self._check_handle is not None:
            self._check_handle.cancel()
        self._queue.clear()
        for slot in self._slots:
            for call in slot.close():
                call.free(self._store)

    def _gpus_of(self, slot: Slot) -> tuple[int, ...]:
        return () if slot.is_host else self._settings.devices.of_slot(slot.index)

    def _tell_slots(self) -> None:
        lost = [f"slot {slot.index}: {slot.lost}" for slot in self._slots if slot.lost]
        self._post(SlotsChanged(self._settings.slots - len(lost), "; ".join(lost)))

    def _refuse_hopeless(self) -> None:
        """Give back what waits for slots of which none works."""
        if not any(slot.lost for slot in self._slots):
            return
        for call in list(self._queue):
            slots = [slot for slot in self._slots if slot.is_host is self._is_of_host(call)]
            if all(slot.lost for slot in slots) and not call.is_save:
                self._queue.remove(call)
                self._post(Broke(call.id, Failed("stopped", f"no slot works here: {slots[0].lost}")))

    def _is_of_host(self, call: OpenCall) -> bool:
        return call.is_of_host and self._settings.host_slots > 0

    def _waiting(self, number: int) -> OpenCall | None:
        return next((call for call in self._queue if call.id == number), None)

    # Calls and slots ------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give waiting calls to slots that take them, preferring a child that already is of the right kind."""
        waits: set[bool] = set()  # for slots with and without a device: the first that waits lets no other pass
        kinds = {slot.is_host for slot in self._slots}
        for call in list(self._queue):
            if waits == kinds:
                return
            is_host = self._is_of_host(call)
            if is_host in waits:
                continue
            able = [slot for slot in self._slots if slot.is_host is is_host and slot.takes(call)]
            if not able:
                waits.add(is_host)
                continue
            slot = min(able, key=partial(Slot.preference, engine=call.brief.engine))
            if slot.is_unfit(call):
                slot.dismiss(self._clock())  # _on_exit comes back here
                waits.add(is_host)
                continue
            self._queue.remove(call)
            self._begin(slot, call)

    def _begin(self, slot: Slot, call: OpenCall) -> None:
        inputs = call.pin(self._store)
        if isinstance(inputs, Failed):
            self._post(Broke(call.id, inputs))
            return
        if slot.child is None and not self._spawn(slot, call):
            return
        slot.begin(call, inputs, self._room_ahead(call), self._clock())
        self._tell_begin(call)
        self._watch()

    def _room_ahead(self, call: OpenCall) -> tuple[calls.GrantedSegment, ...]:
        """Room for what a partition makes, if it is as little as what the last one of its stage made: so it need not
        ask. What it does not use is free again when it ends."""
        like, sizes = self._made_lately
        if like is None or not call.is_like(like) or max(sizes, default=0) > SMALL_BYTES:
            return ()
        segments = self._room.grant_now(call.priority, sizes)
        call.take(segments)
        return _shown(segments)

    def _tell_begin(self, call: OpenCall) -> None:
        if not (call.is_given_up or call.waits):
            self._post(Began(call.id))

    def _spawn(self, slot: Slot, call: OpenCall) -> bool:
        self._births += 1
        settings, engine = self._settings, call.brief.engine
        module = ("-P", "-m", ENGINE_MODULE)  # -P: no module of the folder we happen to be in
        shared = ("--threads", str(settings.host_threads), "--workers", str(settings.workers))
        limits = ("--worker-memory", str(settings.worker_memory), "--worker-silence", str(settings.stall_s))
        options = ("--engine", engine, *shared, *limits, *(["--host"] if slot.is_host else []))
        gpus = None if slot.is_host or slot.lost else self._gpus_of(slot)
        command = ChildCommand(
            (*module, *options),
            engine_environment(gpus, settings.environment),
            settings.folder,
            f"slot{slot.index}-{self._births}",
        )
        try:
            child = EngineChild(
                self._host.loop,
                self._context,
                command,
                lambda message: self._on_message(slot, message),
                lambda status, words: self._on_exit(slot, status, words),
            )
        except (OSError, zmq.ZMQError) as error:
            call.free(self._store)
            failed = Failed("engine", f"cannot start an engine: {error}", blame=call.asked.task.stage)
            self._post(Broke(call.id, failed))
            return False
        slot.house(child, engine, self._clock())
        self._host.report(Report("engine.started", {"slot": slot.index, "engine": engine, "pid": child.pid}))
        return True

    # What children say ----------------------------------------------------------------------------------------------

    def _on_message(self, slot: Slot, message: calls.FromChild) -> None:
        if not slot.is_trusted:
            return  # its calls end as it does
        now = self._clock()
        slot.heard(now)
        if isinstance(message, calls.Ready):
            slot.is_ready(message, now)
            for begun in slot.calls.values():
                self._tell_begin(begun)
            self._host.report(Report("engine.ready", {"slot": slot.index, "numerics": message.numerics}, "debug"))
            return
        call = slot.calls.get(message.call)
        if call is None:
            if isinstance(message, calls.Grant) and slot.child is not None:
                slot.child.send(calls.Refused(message.call, "the call is over"))
            return  # about a call that is over
        match message:
            case calls.Beat():
                call.beat(message.progress, now)
            case Reached():
                call.moved(now)
                self._post(message)
            case calls.Grant():
                self._grant(slot, call, message)
            case calls.Sealed():
                call.seal(message.shards)
            case Finished():
                self._finish(slot, call, message)
            case Broke():
                self._break(slot, call, message)

    def _grant(self, slot: Slot, call: OpenCall, message: calls.Grant) -> None:
        least = call.least_room(message.sizes)
        if not self._store.can_hold(least):
            why = f"{size_text(least)} of room are needed at once; {self._store.capacity}"
            self._answer_grant(slot, call, calls.Refused(message.call, why, True))
            return
        call.owe_room()
        self._room.grant(call.priority, message.sizes, partial(self._granted, slot, call))

    def _granted(self, slot: Slot, call: OpenCall, granted: list[Segment] | Full) -> None:
        """Space was found for what a call asked for, or was not; the call may be over by now."""
        if slot.calls.get(call.id) is not call:
            for segment in () if isinstance(granted, Full) else granted:
                self._store.release(segment)
        elif isinstance(granted, Full):
            self._answer_grant(slot, call, calls.Refused(call.id, str(granted)))
        else:
            call.take(granted)
            self._answer_grant(slot, call, calls.Granted(call.id, _shown(granted)))

    def _answer_grant(self, slot: Slot, call: OpenCall, answer: calls.Granted | calls.Refused) -> None:
        call.room_answered(self._clock())
        if slot.child is not None:
            slot.child.send(answer)

    def _finish(self, slot: Slot, call: OpenCall, message: Finished) -> None:
        end: Finished | Broke = message
        if not call.is_given_up:
            made: list[ShardId] = []
            try:
                made = call.keep(self._store)
            except (KeyError, ValueError) as error:  # a segment it was not granted, or bytes of another name
                what = f"it sealed what it may not: {error}"
                end = Broke(call.id, Failed("engine", what, blame=call.asked.task.stage))
            self._store.made(call.asked.run, made)
            self._untold[call.id] = (call.asked.run, made)
            self._made_lately = (call.asked.task if call.is_chain else None, call.made_in)
            if isinstance(end, Finished):
                end = replace(end, done=self._with_short(call, end.done, made))
        slot.end(call, message.done)
        self._follow(slot)
        self._end([(call, end)])

    def _with_short(self, call: OpenCall, done: Done, made: list[ShardId]) -> Done:
        """What a call gave, with the bytes that go along with its records."""
        if not is_short(call.asked.work, [ref for each in done.made for _, ref in each.outputs]):
            return done
        with contextlib.suppress(OSError):  # on a disk that fails
            return replace(done, short=tuple((shard, bytes(self._store.view(shard, 0, 1))) for shard in made))
        return done

    def _break(self, slot: Slot, call: OpenCall, message: Broke) -> None:
        slot.end(call)
        failed = message.failed
        if failed.kind == "lost" and self._store.is_on_disk(ShardId(failed.blame)):
            self._store.spoil(ShardId(failed.blame))
        if failed.kind == "engine":
            slot.distrust(self._clock())
        else:
            self._follow(slot)
        end = message
        if failed.kind in ("engine", "host") and self._drain_if_lost(slot, failed.error):
            end = Broke(call.id, Failed("stopped", failed.error))
        self._end([(call, end)])

    def _on_exit(self, slot: Slot, status: int, words: str) -> None:
        reason = slot.verdict or words
        assert slot.child is not None
        doing, is_own = slot.child.doing, not slot.verdict and -status not in OUTSIDE
        is_dismissed, left = slot.is_dismissed, slot.vacate()
        is_lost_device = is_own and self._drain_if_lost(slot, words)

        found = frozenset[int]() if is_dismissed else suspects(doing, [call.id for call in left])

        def told(call: OpenCall) -> Failed:
            if is_lost_device:
                return Failed("stopped", words)
            if found == {call.id}:
                return blamed(doing, reason, doing.stage or call.asked.task.stage)
            if call.id not in found:
                return Failed("stopped", f"the engine ended for another task: {reason}")
            self._suspects.append((call.asked.run, call.asked.task))
            return Failed("stopped", f"the engine ended with {len(found)} tasks, and each is tried alone: {reason}")

        answered = [call for call in left if not call.is_given_up]
        if not is_dismissed:
            tasks = ", ".join(str(call.asked.task) for call in answered)
            fields = {"slot": slot.index, "reason": reason, "task": tasks, "doing": doing.what}
            self._host.report(Report("engine.died", fields, "warning"))
        self._end([(call, Broke(call.id, told(call))) for call in left])

    def _drain_if_lost(self, slot: Slot, error: str) -> bool:
        """An engine's own words may tell of its device before the driver does. Whether they do."""
        gpus = self._gpus_of(slot) if is_lost(error) else ()
        for gpu in gpus:
            self.drain(gpu, f"cannot be used: {error}")
        return bool(gpus)

    def _follow(self, slot: Slot) -> None:
        """A call of the slot has ended: its child goes on with what it has in hand."""
        following = slot.follow(self._clock())
        if following is not None:
            self._tell_begin(following)

    def _end(self, ended: list[tuple[OpenCall, Finished | Broke]]) -> None:
        """These calls are over, and their slot is free. What begins in it is told first: who hears of an end then
        knows what waits no more."""
        for call, _ in ended:
            call.free(self._store)
        self._fill()
        for call, end in ended:
            if not call.is_given_up:
                self._post(end)

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
                slot.excuse(asleep_s)
            for report in slot.stuck_reports(now):
                self._host.report(report)
            slot.judge(now)
        if any(slot.child is not None for slot in self._slots):
            self._watch()


def _shown(segments: list[Segment]) -> tuple[calls.GrantedSegment, ...]:
    """As a child is told of them."""
    return tuple(calls.GrantedSegment(segment.number, segment.nbytes, segment.path) for segment in segments)
