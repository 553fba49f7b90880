"""Starting daemons for tests: by their command, or as a fork of a process that has their modules loaded.

A daemon takes a second of a processor to load its modules, and the tests start hundreds. One that is forked is a
process of its own all the same, with its own sockets, files and memory; what it shares with others is the pages of
their modules, so a benchmark starts daemons by their command.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

from tests.support.until import until

TOLD_S = 60.0  # by when who is told to end, again and again, has ended
AGAIN_S = 0.6  # between two signals: what comes sooner may be the first one, told twice
_LOADED = ["dflowd.__main__", "dflowd.daemon", "dflowd.opening", "uvloop", __name__]


class Process(Protocol):
    """What the tests do with a daemon's process, as of subprocess.Popen."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...


class Starter(Protocol):
    """Starts a daemon. `prepare`: done in its process before the daemon begins there."""

    def __call__(
        self,
        config: Path,
        output: Path,
        environment: Mapping[str, str],
        prepare: Callable[[], None] | None = None,
    ) -> Process: ...


def told_until_it_ends(process: Process, number: signal.Signals) -> int:
    """Tell it this signal, and again while it goes on, as somebody does who presses Ctrl-C; its exit status."""

    def has_ended() -> bool:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(AGAIN_S)
        return process.poll() is not None

    until(has_ended, TOLD_S)
    return process.wait()


def spawn(
    config: Path, output: Path, environment: Mapping[str, str], prepare: Callable[[], None] | None = None
) -> Process:
    """`dflowd run`, whose streams end in `output`, in a session of its own."""
    with output.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "dflowd", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, **environment},
            preexec_fn=prepare,
        )


def fork(
    config: Path, output: Path, environment: Mapping[str, str], prepare: Callable[[], None] | None = None
) -> Process:
    """As spawn(), without the second that loading its modules takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    process = context.Process(target=_live, args=(config, output, {**os.environ, **environment}, prepare))
    process.start()
    return _Forked(process)


def _live(config: Path, output: Path, environment: dict[str, str], prepare: Callable[[], None] | None) -> None:
    from dflowd.__main__ import main
    from dflowd.jobs.ties import die_with

    die_with(os.getppid())  # which ends with the tests, however those end
    os.setsid()
    nothing, stream = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for fd, source in enumerate((nothing, stream, stream)):
        os.dup2(source, fd)
    os.close(nothing)
    os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    sys.exit(main(["run", "--config", str(config)]))


@dataclass(frozen=True, slots=True)
class _Forked:
    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("dflowd", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its parent has not said so yet
            if self.poll() is None:
                os.kill(self.pid, signal.Signals(number))
