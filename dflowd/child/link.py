"""The child's end of the line to its daemon: a thread that speaks, so that a busy engine still beats and listens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from dflow_protocols.events import Broke, Finished, Reached
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


class Link:
    """One DEALER socket in a thread. Everything else is called from the engine's thread."""

    def __init__(self, address: str, on_beat: Callable[[], None] = lambda: None) -> None:
        """`on_beat` is called in the thread, about as often as it tells that the process lives."""
        self._on_beat = on_beat
        self._context = zmq.Context()
        self._calls: queue.SimpleQueue[Call | Quit] = queue.SimpleQueue()
        self._grants: queue.SimpleQueue[Granted | Refused] = queue.SimpleQueue()
        self._call = 0
        self._given_up = -1
        self._trimmed = (0, 0)  # (call, leaf before which it shall end)
        self._progress = 0
        self._is_opaque = False
        self._outbox = self._context.socket(zmq.PAIR)
        self._outbox.bind("inproc://outbox")
        self._thread = threading.Thread(target=self._run, args=(address,), name="link", daemon=True)
        self._thread.start()

    def send(self, message: FromChild) -> None:
        if isinstance(message, Finished | Broke):
            self._call = 0
        self._outbox.send(encode(message))

    def next(self) -> Call | Quit:
        """Wait for the next call."""
        message = self._calls.get()
        if isinstance(message, Call):
            self._call, self._progress = message.id, 0
        return message

    def progress(self) -> None:
        """The call advanced. Raises GivenUp once nobody waits for it."""
        self._progress += 1
        if self._given_up == self._call:
            raise GivenUp

    @contextmanager
    def opaque(self) -> Iterator[None]:
        """A library works and tells nothing: as long as the process computes or moves bytes, the call advances."""
        self._is_opaque = True
        try:
            yield
        finally:
            self._is_opaque = False
        self.progress()

    def leaf(self, leaf: int) -> bool:
        """The call comes to this leaf of its block. False if it is somebody else's now. Raises GivenUp."""
        self.progress()
        call, end = self._trimmed
        if call == self._call and leaf >= end:
            return False
        self.send(Reached(self._call, leaf))
        return True

    def grant(self, sizes: tuple[int, ...]) -> tuple[GrantedSegment, ...]:
        """Ask the daemon for room, and wait. Raises NoRoom, or TooLarge."""
        self.send(Grant(self._call, sizes))
        while (answer := self._grants.get()).call != self._call:
            continue  # of a call given up meanwhile
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
                if evidence.has_grown() and self._is_opaque:
                    self._progress += 1
                line.send(encode(Beat(self._call, self._progress)))
                self._on_beat()
        outbox.close()
        line.close()

    def _receive(self, message: Any) -> None:
        match message:
            case Call() | Quit():
                self._calls.put(message)
            case Granted() | Refused():
                self._grants.put(message)
            case GiveUp(call):
                self._given_up = call
            case Trim(call, end):
                self._trimmed = (call, end)
