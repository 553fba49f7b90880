"""The child's end of the line to its daemon: a thread that speaks, so that a busy engine still beats and listens.

Messages carry the number of their call. What an engine says and asks is of the call that has the baton. One that is
given up before anybody has begun it is answered here, at once: the one before it may take long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import zmq

from dflow_protocols.events import Broke, Finished, Reached
from dflow_protocols.work import Failed
from dflowd.jobs.baton import NOBODY, Baton
from dflowd.jobs.failures import GIVEN_UP, GivenUp, NoRoom, TooLarge
from dflowd.slots.calls import (
    BEAT_S,
    HOLD_S,
    Beat,
    Call,
    FromChild,
    GiveUp,
    Grant,
    Granted,
    GrantedSegment,
    Quit,
    Refused,
    Sealed,
    Trim,
    decode,
    encode,
)

from .evidence import Evidence

FAR = 1 << 62  # a leaf that no block has
AT_ONCE, SOON = b"!", b""  # when what follows is to be said
MOST_HELD = 16  # messages


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


class _Said:
    """What waits to be said in one go. `until`: when it waits no longer."""

    def __init__(self, line: zmq.Socket[bytes]) -> None:
        self._line = line
        self._frames: list[bytes] = []
        self.until = inf

    def add(self, when: bytes, frame: bytes) -> None:
        if not self._frames:
            self.until = time.monotonic() + HOLD_S
        self._frames.append(frame)
        if when == AT_ONCE or len(self._frames) >= MOST_HELD:
            self.flush()

    def flush(self) -> None:
        if self._frames:
            self._line.send_multipart(self._frames)
            self._frames, self.until = [], inf


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
        self._in_hand: dict[int, _Open] = {}  # of these, calls that nobody has begun; who takes one out decides it
        self._moved = (NOBODY, 0)  # the holder of the baton, and its progress, when that was last told
        self._outbox = self._context.socket(zmq.PAIR)
        self._outbox.bind("inproc://outbox")
        self._thread = threading.Thread(target=self._run, args=(address,), name="link", daemon=True)
        self._thread.start()

    def send(self, message: FromChild) -> None:
        when = SOON if isinstance(message, Sealed) else AT_ONCE  # the end of its call follows
        self._outbox.send_multipart([when, encode(message)])

    def begin(self, call: int) -> bool:
        """Work on the call begins. False if it was given up before, and is answered."""
        return self._in_hand.pop(call, None) is not None

    def answer(self, message: Finished | Broke) -> None:
        """The end of a call: nothing more is told of it. While more are in hand it waits a moment for theirs."""
        self._open.pop(message.call, None)
        is_last = self._open.keys() <= {NOBODY}
        self._outbox.send_multipart([AT_ONCE if is_last else SOON, encode(message)])

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
        evidence, said = Evidence(), _Said(line)
        while True:
            left_s = max(0.0, min(BEAT_S, said.until - time.monotonic()))
            ready = dict(poller.poll(int(left_s * 1000)))
            if outbox in ready:
                when, *frames = outbox.recv_multipart()
                if not frames:
                    break
                said.add(when, frames[0])
            if line in ready:
                for frame in line.recv_multipart():
                    self._receive(decode(frame), said)
            if not ready and said.until < inf:
                said.flush()
            elif not ready:
                for beat in self._beats(evidence.has_grown()):
                    line.send(encode(beat))
                self._on_beat()
        said.flush()
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

    def _receive(self, message: Any, said: _Said) -> None:
        match message:
            case Call(id=call):
                self._open[call] = self._in_hand[call] = _Open()
                self._deliver(message)
            case Quit():
                self._deliver(message)
            case Granted(call=call) | Refused(call=call) if call in self._open:
                self._open[call].grants.put(message)
            case GiveUp(call) if self._in_hand.pop(call, None) is not None:
                del self._open[call]
                said.add(AT_ONCE, encode(Broke(call, Failed("stopped", GIVEN_UP))))
            case GiveUp(call) if call in self._open:
                self._open[call].is_given_up = True
            case Trim(call, end) if call in self._open:
                self._open[call].end = end
