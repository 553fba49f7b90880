"""Between the pure node and the world: events in, actions performed, in order, turn by turn.

It alone reads the clock, arms one alarm for the node's deadline, and decides nothing. A turn takes all events that are
there and has the node act once, so a loop that is late catches up; and while the slots have work before them, and so
no step waits for the node, it lets a little more come. All that is due to a peer in one turn of the loop leaves in one
frame. What a peer's or a user's input makes go wrong is a report, never the end.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable
from typing import Protocol

from dflow_protocols.events import (
    Action,
    Advanced,
    Dial,
    Discard,
    Drop,
    Event,
    Fetch,
    FindFiles,
    HangUp,
    Lagged,
    NotPersisted,
    Persist,
    Received,
    Reply,
    Report,
    Send,
    SendThrough,
    Start,
    Stop,
    Tick,
    Trim,
    Unseal,
)
from dflow_protocols.names import NodeId
from dflow_protocols.wire.frame import Frame

from .process.lag import LagMeter

NOT_ON_DISK = {
    "what": "this daemon could not write it to its state directory",
    "hint": "free some of that disk, or ask another daemon; `dflow doctor` says more",
    "exit": 1,
}
EVENTS_A_TURN = 64  # then sockets are served
REST_S = 0.01  # that a machine which may rest lets pass after a turn: a quarter of what waits in its slots, and little
# for a thief, a client or a probe


class Machine(Protocol):
    @property
    def deadline(self) -> float: ...
    @property
    def must_act(self) -> bool: ...
    @property
    def may_rest(self) -> bool: ...
    def take(self, now: float, event: Event) -> None: ...
    def act(self, now: float) -> list[Action]: ...


class Performer(Protocol):
    """The rooms of the daemon, as the driver uses them. None of these waits, but `persist`."""

    def send(self, to: NodeId, frames: list[Frame]) -> None: ...
    def send_through(self, action: SendThrough) -> None: ...
    def unseal(self, action: Unseal) -> None: ...
    def hang_up(self, action: HangUp) -> None: ...
    def persist(self, action: Persist) -> Awaitable[None]: ...
    def start(self, action: Start) -> None: ...
    def stop(self, action: Stop) -> None: ...
    def trim(self, action: Trim) -> None: ...
    def fetch(self, action: Fetch) -> None: ...
    def drop(self, action: Drop) -> None: ...
    def discard(self, action: Discard) -> None: ...
    def find_files(self, action: FindFiles) -> None: ...
    def dial(self, action: Dial) -> None: ...
    def reply(self, action: Reply) -> None: ...
    def advance(self, action: Advanced, cause: int | None = None) -> None: ...
    def report(self, report: Report, cause: int | None = None) -> None: ...
    def observe(self, event: Event) -> None: ...
    def note(self, cause: int, now: float, events: list[Event], actions: list[Action]) -> None: ...


class Driver:
    """Feeds one machine. Call `post` from the loop's thread only, and `run` once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: deque[tuple[float, Event]] = deque()  # when it was posted
        self._lag = LagMeter(loop)
        self._outbox: dict[NodeId, list[Frame]] = {}
        self._woken = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()  # cleared while the disk is at work
        self._written.set()
        self._turns = 0  # so far; the number of each is the cause of all that comes of it
        self._rests_until = 0.0

    def clock(self) -> float:
        """Seconds since some start; never goes back."""
        return self._loop.time()

    def lag_s(self) -> float:
        """How late the loop was at worst, lately."""
        return self._lag.worst_lately()

    def post(self, event: Event) -> None:
        """Something happened; it is handled after all that was posted before. But that a write failed comes first: what
        waits must not be answered as if it lay on the disk."""
        put = self._inbox.appendleft if isinstance(event, NotPersisted) else self._inbox.append
        put((self.clock(), event))
        self._woken.set()

    async def written(self) -> None:
        """Wait until all that the machine wanted to persist so far has been written: only then may others be told."""
        await self._written.wait()

    async def run(self, machine: Machine, performer: Performer) -> None:
        """Drive `machine` until cancelled."""
        self._woken.set()  # its deadline is due or to be armed
        self._lag.start()
        try:
            await self._drive(machine, performer)
        finally:
            self._lag.stop()

    async def _drive(self, machine: Machine, performer: Performer) -> None:
        while True:
            await self._woken.wait()
            if (rest_s := self._rests_until - self.clock()) > 0.0:
                await asyncio.sleep(rest_s)
            self._woken.clear()
            late_s = self._lag.take(self.clock())
            if late_s:
                self._inbox.appendleft((self.clock(), Lagged(late_s)))
            left = min(EVENTS_A_TURN, len(self._inbox))  # what this turn of the loop takes
            while left:
                left -= await self._turn(machine, performer, left)
            if self.clock() >= machine.deadline:
                self._inbox.appendleft((self.clock(), Tick()))
                await self._turn(machine, performer, 1)
            self._flush(performer)
            if self._inbox:
                self._woken.set()
                await asyncio.sleep(0)
            self._arm(machine.deadline)
            is_behind = len(self._inbox) >= EVENTS_A_TURN
            self._rests_until = self.clock() + REST_S if machine.may_rest and not is_behind else 0.0

    async def _turn(self, machine: Machine, performer: Performer, most: int) -> int:
        """Take so many events, as far as one turn may, and perform what follows. How many were taken. Whatever an event
        raises is told, and the next one taken."""
        self._turns += 1
        cause, now, taken, count = self._turns, self.clock(), list[Event](), 0
        while count < most and not machine.must_act:
            posted, event = self._inbox.popleft()
            self._lag.note(now - max(posted, self._rests_until))  # a rest is no lateness
            count += 1
            try:
                performer.observe(event)
                machine.take(now, event)
                taken.append(event)
            except Exception as error:
                performer.report(_mishap("driver.handle_failed", event, error), cause)
        try:
            actions = machine.act(now)
        except Exception as error:
            performer.report(_mishap("driver.handle_failed", machine, error), cause)
            return count
        await self._perform_all(performer, cause, actions)
        try:
            performer.note(cause, now, taken, actions)
        except Exception as error:
            performer.report(_mishap("driver.perform_failed", machine, error), cause)
        return count

    async def _perform_all(self, performer: Performer, cause: int, actions: list[Action]) -> None:
        """In their order; what relies on the disk is left out where that failed."""
        is_kept = True
        for action in actions:
            try:
                if isinstance(action, Persist):
                    self._flush(performer)  # what was due before need not wait for the disk
                    self._written.clear()
                    await performer.persist(action)
                elif is_kept or not isinstance(
                    action, Send | SendThrough | Reply
                ):  # nobody may rely on what is not on disk
                    self._perform(performer, cause, action)
                elif isinstance(action, Reply):
                    performer.reply(Reply(action.request, False, action.otherwise or NOT_ON_DISK))
            except Exception as error:
                is_kept = is_kept and not isinstance(action, Persist)
                performer.report(_mishap("driver.perform_failed", action, error), cause)
        self._written.set()

    def _perform(self, performer: Performer, cause: int, action: Action) -> None:
        match action:
            case Send():
                self._outbox.setdefault(action.to, []).append(action.message)
            case SendThrough():
                performer.send_through(action)
            case Unseal():
                performer.unseal(action)
            case HangUp():
                performer.hang_up(action)
            case Start():
                performer.start(action)
            case Stop():
                performer.stop(action)
            case Trim():
                performer.trim(action)
            case Fetch():
                performer.fetch(action)
            case Drop():
                performer.drop(action)
            case Discard():
                performer.discard(action)
            case FindFiles():
                performer.find_files(action)
            case Dial():
                performer.dial(action)
            case Reply():
                performer.reply(action)
            case Advanced():
                performer.advance(action, cause)
            case Report():
                performer.report(action, cause)

    def _flush(self, performer: Performer) -> None:
        outbox, self._outbox = self._outbox, {}
        for to, frames in outbox.items():
            try:
                performer.send(to, frames)
            except Exception as error:
                performer.report(_mishap("driver.perform_failed", frames, error))

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if deadline != float("inf"):
            self._alarm = self._loop.call_at(deadline, self._woken.set)


def _mishap(name: str, doing: object, error: Exception) -> Report:
    """A fault of this program or of its input: the event or action that was at hand, and where it broke."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    fields: dict[str, object] = {
        "doing": type(doing).__name__,
        "error": f"{type(error).__name__}: {error}"[:500],
        "at": f"{frame.filename.rpartition('/')[2]}:{frame.lineno}",
    }
    if isinstance(doing, Received):
        fields |= {"doing": type(doing.message).__name__, "peer": doing.source}
    return Report(name, fields, "error")
