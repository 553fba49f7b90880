"""One engine child: a process, its socket, its last words.

Owns that the process is started with the right environment, that its messages arrive on the loop, and that its death
is noticed at once; and that what it started itself, such as a pool of user code, ends with it. Knows nothing of what it
is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from .calls import FromChild, Quit, ToChild, decode, encode
from .devices import is_lost
from .doing import Board, Doing

LAST_WORDS_BYTES = 4096  # of its standard error, read when it died
BATCHES_A_TURN = 16  # of messages; then the loop serves others first


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """How a child is started. `arguments` follow the interpreter; the socket's address and this pid are added."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path  # where its socket and its standard error lie
    name: str  # unique among the children of this daemon's life


class EngineChild:
    """A started child. `on_message` and `on_exit` are called on the loop; neither after close()."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        command: ChildCommand,
        on_message: Callable[[FromChild], None],
        on_exit: Callable[[int, str], None],
    ) -> None:
        """`on_exit` gets the exit status, negative for a signal, and it in words. Raises OSError if the process cannot
        be started."""
        self._loop, self._on_message, self._on_exit = loop, on_message, on_exit
        self._peer: bytes | None = None
        self._waiting: list[bytes] = []  # for the child to speak, or for what else is said in this turn of the loop
        # A path through an open folder is short however deep the folder lies; sun_path holds 107 bytes.
        self._folder = os.open(command.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket_file = command.folder / f"{command.name}.sock"
        self._error_file = command.folder / f"{command.name}.err"
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._process: subprocess.Popen[bytes] | None = None
        board = os.memfd_create(f"dflowd:{command.name}")
        lifeline, self._lifeline = os.pipe()  # closed by our end, however that comes: then the child's group ends
        try:
            address = f"ipc:///proc/{os.getpid()}/fd/{self._folder}/{self._socket_file.name}"
            self._socket.bind(address)
            self._board = Board(board)
            self._process = self._spawn(command, address, lifeline, board)
        except BaseException:
            self._release()
            raise
        finally:
            os.close(lifeline)
            os.close(board)
        self._exit_handle = os.pidfd_open(self._process.pid)
        self._socket_handle = int(self._socket.getsockopt(zmq.FD))
        loop.add_reader(self._exit_handle, self._reap)
        loop.add_reader(self._socket_handle, self._drain)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def doing(self) -> Doing:
        """What it does, or did when it died."""
        return self._board.read()

    def send(self, message: ToChild) -> None:
        """Queue a message. All of one turn of the loop leave together; before the child has spoken they wait."""
        if not self._waiting and self._peer is not None:
            self._loop.call_soon(self._flush)
        self._waiting.append(encode(message))

    def kill(self) -> None:
        """End it now, and what it started. `on_exit` follows."""
        if (
            self._process is not None and self._process.returncode is None
        ):  # not waited for: the number is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def quit(self) -> None:
        """Ask it to exit. `on_exit` follows when it did."""
        self.send(Quit())

    def close(self) -> None:
        """Kill it and give everything back; says nothing any more."""
        if self._process is None:
            return
        self._loop.remove_reader(self._exit_handle)
        self._loop.remove_reader(self._socket_handle)
        self.kill()
        self._process.wait()
        os.close(self._exit_handle)
        self._process = None
        self._release()

    def _spawn(self, command: ChildCommand, address: str, lifeline: int, board: int) -> subprocess.Popen[bytes]:
        ties = ["--socket", address, "--parent", str(os.getpid()), "--lifeline", str(lifeline), "--board", str(board)]
        with self._error_file.open("wb") as error:
            return subprocess.Popen(
                [sys.executable, *command.arguments, *ties],
                pass_fds=(lifeline, board),
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=error,
                stderr=error,
                start_new_session=True,  # Ctrl-C in a terminal is the daemon's to handle
            )

    def _drain(self) -> None:
        """Read until nothing is left: the descriptor tells only of changes."""
        for _ in range(BATCHES_A_TURN):
            if self._socket.closed:
                return
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if self._peer is None:
                self._peer = peer
                self._flush()
            for frame in frames:
                try:
                    message = decode(frame)
                except ValueError:
                    continue
                if self._socket.closed:
                    return
                self._on_message(message)
        self._loop.call_soon(self._drain)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._socket.closed or not waiting:
            return
        with contextlib.suppress(zmq.Again):  # a child that reads nothing is hung, and the watch will find it
            self._socket.send_multipart([self._peer or b"", *waiting], zmq.NOBLOCK)
        self._loop.call_soon(self._drain)  # sending takes the edge off the socket's descriptor

    def _reap(self) -> None:
        assert self._process is not None
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        self.kill()  # what it started and left behind, while its number cannot be another's
        self._process.wait()
        self._drain()  # what it said before it died counts
        if self._process is None:  # the owner closed it meanwhile
            return
        status, words = self._process.returncode, self._last_words()
        self.close()
        self._on_exit(status, words)

    def _last_words(self) -> str:
        assert self._process is not None
        status = self._process.returncode
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        with contextlib.suppress(OSError), self._error_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
            if lines:  # what PyTorch says of a device is not its last line
                return f"{how}: {next((line for line in lines if is_lost(line)), lines[-1])[:500]}"
        return how

    def _release(self) -> None:
        self._socket.close()
        os.close(self._lifeline)
        os.close(self._folder)
        self._socket_file.unlink(missing_ok=True)
