"""The child's end of the line to its daemon: a thread that speaks, so that a busy engine still beats and listens.

Messages carry the number of their call. What an engine says and asks is of the call that has the baton.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq

from dflow_protocols.events import Reached
from dflowd.jobs.baton import NOBODY, Baton
from dflowd.jobs.failures import GivenUp, NoRoom, TooLarge
from dflowd.slots.calls import (
    BEAT_S,
    Beat,
    Call,
    FromChild,
    GiveUp,
    Grant,
    Granted,
    GrantedSegment,
    Quit,
    Refused,
    Trim,
    decode,
    encode,
)

from .evidence import Evidence

FAR = 1 << 62  # a leaf that no block has


@dataclass(slots=True)
class _Open:
    """What the two threads tell each other of a call."""

    progress: int = 0
    is_opaque: bool = False
    is_given_up: bool = False
    end: int = FAR  # leaf before which it shall end
    grants: queue.SimpleQueue[Granted | Refused] = field(default_factory=queue.SimpleQueue)

    def advance(self) -> None:
        self.progress += 1

    def work_unseen(self, is_begin: bool) -> None:
        """A library begins, or ends, to work for it."""
        self.is_opaque = is_begin


class Link:
    """One DEALER socket in a thread. All else is called by who has the baton, and by nobody before there are calls."""

    def __init__(
        self,
        address: str,
        deliver: Callable[[Call | Quit], None] = lambda message: None,
        on_beat: Callable[[], None] = lambda: None,
        baton: Baton | None = None,
    ) -> None:
        """In the link's thread `deliver` is given what there is to do, and `on_beat` is called about as often as it
        tells that the process lives."""
        self._deliver, self._on_beat, self._baton = deliver, on_beat, baton or Baton()
        self._context = zmq.Context()
        self._open: dict[int, _Open] = {NOBODY: _Open()}
        self._moved = (NOBODY, 0)  # the holder of the baton, and its progress, when that was last told
        self._outbox = self._context.socket(zmq.PAIR)
        self._outbox.bind("inproc://outbox")
        self._thread = threading.Thread(target=self._run, args=(address,), name="link", daemon=True)
        self._thread.start()

    def send(self, message: FromChild) -> None:
        self._outbox.send(encode(message))

    def ended(self, call: int) -> None:
        """It is answered: nothing more is told of it."""
        self._open.pop(call, None)

    @property
    def _mine(self) -> _Open:
        return self._open[self._baton.holder]

    def progress(self) -> None:
        """The call advanced. Raises GivenUp once nobody waits for it."""
        self._mine.advance()
        if self._mine.is_given_up:
            raise GivenUp

    @contextmanager
    def opaque(self) -> Iterator[None]:
        """A library works and tells nothing: as long as the process computes or moves bytes, the call advances."""
        mine = self._mine
        mine.work_unseen(True)
        try:
            yield
        finally:
            mine.work_unseen(False)
        self.progress()

    def leaf(self, leaf: int) -> bool:
        """The call comes to this leaf of its block. False if it is somebody else's now. Raises GivenUp."""
        self.progress()
        if leaf >= self._mine.end:
            return False
        self.send(Reached(self._baton.holder, leaf))
        return True

    def grant(self, sizes: tuple[int, ...]) -> tuple[GrantedSegment, ...]:
        """Ask the daemon for room, and wait; other calls go on meanwhile. Raises NoRoom, or TooLarge."""
        mine = self._mine
        self.send(Grant(self._baton.holder, sizes))
        with self._baton.resting():
            answer = mine.grants.get()
        if isinstance(answer, Refused):
            raise TooLarge(answer.error) if answer.is_final else NoRoom(answer.error)
        return answer.segments

    def close(self) -> None:
        """Everything sent is handed over before this returns."""
        self._outbox.send(b"")
        self._thread.join()
        self._outbox.close()
        self._context.term()

    def _run(self, address: str) -> None:
        line = self._context.socket(zmq.DEALER)
        line.linger = 1000
        line.connect(address)
        outbox = self._context.socket(zmq.PAIR)
        outbox.connect("inproc://outbox")
        poller = zmq.Poller()
        poller.register(line, zmq.POLLIN)
        poller.register(outbox, zmq.POLLIN)
        evidence = Evidence()
        while True:
            ready = dict(poller.poll(int(BEAT_S * 1000)))
            if outbox in ready:
                frame = outbox.recv()
                if not frame:
                    break
                line.send(frame)
            if line in ready:
                self._receive(decode(line.recv()))
            if not ready:
                for beat in self._beats(evidence.has_grown()):
                    line.send(encode(beat))
                self._on_beat()
        outbox.close()
        line.close()

    def _beats(self, has_worked: bool) -> list[Beat]:
        """How far each call is. One that waits for the baton advances as the one does that has it: it hangs with that,
        and not by itself."""
        calls, holder = self._open.copy(), self._baton.holder
        if has_worked:
            for each in (each for each in calls.values() if each.is_opaque):
                each.advance()
        now = (holder, calls[holder].progress if holder in calls else 0)
        if now != self._moved:
            self._moved = now
            for number in calls.keys() - {holder}:
                calls[number].advance()
        beats = [Beat(number, each.progress) for number, each in calls.items() if number != NOBODY]
        return beats or [Beat(NOBODY, calls[NOBODY].progress)]

    def _receive(self, message: Any) -> None:
        match message:
            case Call(id=call):
                self._open[call] = _Open()
                self._deliver(message)
            case Quit():
                self._deliver(message)
            case Granted(call=call) | Refused(call=call) if call in self._open:
                self._open[call].grants.put(message)
            case GiveUp(call) if call in self._open:
                self._open[call].is_given_up = True
            case Trim(call, end) if call in self._open:
                self._open[call].end = end
