"""The engine's end of one worker: a process, what it was asked, and when it has to have answered."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from dflowd.jobs.limits import Limits

from .outcome import MOST_KEPT, Arguments, Due, Signature

SHOWN_BYTES = 64 << 10  # of what a worker prints in its life; the rest is read, so that it does not block, and dropped
LAST_BYTES = 2048  # kept to say why it ended
LARGEST_ANSWER = 256 << 20
ENDS_S = 2.0  # between the end of its line and its own
HALF_SAID = struct.pack("ll", 10, 0)  # seconds and microseconds that a message may take that has begun
MODULE = "dflowd.workers.process"


class Worker:
    """Answers what it is asked, each by a number, in whatever order; 0 is the number of an import."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Raises OSError where no process can be started."""
        self._folder = folder
        self._loaded: dict[str, Signature] = {}
        self._answers = 0
        self._asked: dict[int, float] = {}  # what it has not answered, with the moment when it is to be ended for that
        self._kept: dict[str, None] = {}  # conversations that it remembers, in the order in which they went on
        self._last: deque[bytes] = deque(maxlen=8)
        self.line, theirs = Pipe()
        with socket.socket(fileno=os.dup(self.line.fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, HALF_SAID)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, HALF_SAID)
        lifeline, self._lifeline = os.pipe()
        try:
            ties = ("--line", str(theirs.fileno()), "--lifeline", str(lifeline), "--memory", str(limits.memory_bytes))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *ties],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,  # a debugger finds the end of its input, and gives up
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.exit_handle = os.pidfd_open(self._process.pid)
        except OSError:  # such as for want of descriptors; a process that is there ends with its lifeline
            self.line.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._reader = threading.Thread(target=self._read, name="worker", daemon=True)
        self._reader.start()

    @property
    def handles(self) -> tuple[Connection, int]:
        """To wait for: it said something, or is over."""
        return self.line, self.exit_handle

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def asked(self) -> tuple[int, ...]:
        """What it has not answered yet, oldest first."""
        return tuple(self._asked)

    @property
    def until_s(self) -> float:
        """When the first of these is too late."""
        return min(self._asked.values(), default=math.inf)

    def late(self, now: float) -> list[int]:
        return [number for number, until in self._asked.items() if until <= now]

    def signature(self, name: str) -> Signature | None:
        """Of a function that it has loaded."""
        return self._loaded.get(name)

    def load(self, name: str, until_s: float) -> None:
        """Ask for a function; answered as call 0."""
        self._asked[0] = until_s
        self._send(["load", name, str(self._folder)])

    def keeps(self, conversation: str) -> bool:
        """Whether it remembers the conversation."""
        return conversation in self._kept

    def call(self, number: int, name: str, given: Arguments, due: Due, limit_s: float, until_s: float) -> None:
        """Call a function that is loaded."""
        self._asked[number] = until_s
        if given.of:
            self._kept.pop(given.of, None)
            self._kept[given.of] = None
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        self._send(["call", number, name, given.placed, dict(given.named), asdict(due), limit_s])

    def loaded(self, name: str, signature: Signature) -> None:
        """It said what the function that it was asked for takes."""
        self._loaded[name] = signature
        self.answered(0)

    def answered(self, number: int) -> None:
        self._asked.pop(number, None)
        self._answers += number > 0

    @property
    def is_used(self) -> bool:
        """Whether it has answered calls, and may keep something of them."""
        return self._answers > 0

    def heard(self) -> list[list[Any]]:
        """The messages that have come. Raises EOFError where no more will, ValueError for what is none."""
        found = []
        try:
            while self.line.poll():
                message = json.loads(self.line.recv_bytes(LARGEST_ANSWER))
                if not isinstance(message, list) or len(message) < 3:
                    raise ValueError(str(message)[:80])
                found.append(message)
        except ConnectionError as error:  # its end
            raise EOFError from error
        except OSError as error:  # an answer that is too long, or stops half-way
            raise ValueError(error) from error
        return found

    def kill(self, is_ending: bool = False) -> str:
        """End it and what it started, if it lives yet; returns how it ended, in words. `is_ending`: it is about to end
        by itself, and how is of interest."""
        if is_ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_S)
        is_over = self._process.poll() is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self._reader.join(1.0 if is_over else 0.0)  # what it said last
        with contextlib.suppress(OSError):
            self.line.close()
        for handle in (self.exit_handle, self._lifeline):
            with contextlib.suppress(OSError):
                os.close(handle)
        words = b"".join(self._last)[-LAST_BYTES:].decode(errors="replace").strip().splitlines()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"{how}: {words[-1][:200]}" if words and is_over else how

    def _send(self, message: list[Any]) -> None:
        with contextlib.suppress(OSError):  # it is over; its exit is noticed
            self.line.send_bytes(json.dumps(message).encode())

    def _read(self) -> None:
        """What it prints goes where the engine's own output goes, up to a bound."""
        assert self._process.stdout is not None
        left = SHOWN_BYTES
        with self._process.stdout as printed:
            while said := os.read(printed.fileno(), 8192):
                self._last.append(said)
                if left > 0:
                    with contextlib.suppress(OSError):
                        os.write(2, said[:left])
                    left -= len(said)
                    if left <= 0:
                        with contextlib.suppress(OSError):
                            os.write(2, b"\n(a worker printed more, which is not kept)\n")
