"""What an engine started ends with it: user code starts pools and sandboxes, and nobody else would stop them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dflowd.slots.blame import blamed
from dflowd.slots.doing import Doing
from dflowd.slots.process import ChildCommand, EngineChild
from tests.support.strike import is_alive
from tests.support.until import until

DEADLINE_S = 60.0
ENGINE = """
import os, subprocess, sys, time
from dflowd.jobs.ties import tie_group
tie_group(int(sys.argv[sys.argv.index("--lifeline") + 1]))
sleeper = subprocess.Popen(["sleep", "1000"])
print(sleeper.pid, file=sys.stderr, flush=True)
while not os.path.exists({end!r}):
    time.sleep(0.02)
os._exit(7)
"""
DAEMON = """
import asyncio, os, sys, zmq
from pathlib import Path
from dflowd.slots.process import ChildCommand, EngineChild

async def live():
    command = ChildCommand(("-c", sys.argv[1]), dict(os.environ), Path(sys.argv[2]), "engine")
    child = EngineChild(asyncio.get_running_loop(), zmq.Context(), command, print, print)
    await asyncio.sleep(1000)

asyncio.run(live())
"""


def sleeper(folder: Path) -> int:
    """The process that the engine started."""
    file = folder / "engine.err"
    said = until(lambda: file.exists() and file.read_text().partition("\n")[0].strip(), DEADLINE_S)
    return int(said)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """What an engine runs here; nothing of it is left behind."""
    yield ENGINE.format(end=str(tmp_path / "end"))
    file = tmp_path / "engine.err"
    if file.exists() and (pid := file.read_text().split()) and is_alive(int(pid[0])):
        os.kill(int(pid[0]), signal.SIGKILL)


@pytest.mark.parametrize("way", ["killed", "exits", "closed"])
async def test_what_an_engine_started_ends_with_it(tmp_path: Path, engine: str, way: str) -> None:
    """However it ends: killed as hung, by an exit of its own, or with its daemon."""
    ended = asyncio.Event()
    command = ChildCommand(("-c", engine), dict(os.environ), tmp_path, "engine")
    with zmq.Context() as context:
        child = EngineChild(asyncio.get_running_loop(), context, command, print, lambda status, words: ended.set())
        pid = await asyncio.to_thread(sleeper, tmp_path)
        assert is_alive(pid)
        if way == "killed":
            child.kill()
        elif way == "exits":
            (tmp_path / "end").touch()
        else:
            child.close()
        if way != "closed":
            await asyncio.wait_for(ended.wait(), DEADLINE_S)
        until(lambda: not is_alive(pid), DEADLINE_S)
        child.close()


def test_what_an_engine_started_ends_when_its_daemon_is_killed(tmp_path: Path, engine: str) -> None:
    """A daemon that is killed can stop nobody: pools of its engines would score for ever for nobody."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, engine, str(tmp_path)])
    try:
        pid = sleeper(tmp_path)
        assert is_alive(pid)
    finally:
        daemon.kill()
        daemon.wait()
    until(lambda: not is_alive(pid), DEADLINE_S)


SAYS = """
import os, sys
from dflowd.slots.doing import Board, Doing
board = Board(int(sys.argv[sys.argv.index("--board") + 1]))
board.write(Doing("score", "x" * 3000))
board.write(Doing("score", "it did `reward`"))
os.kill(os.getpid(), {number})
"""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
async def test_what_an_engine_did_is_known_after_it_crashed(tmp_path: Path, number: int) -> None:
    """It had no moment to say so."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    command = ChildCommand(("-c", SAYS.format(number=int(number))), dict(os.environ), tmp_path, "engine")
    with zmq.Context() as context:
        child = EngineChild(
            asyncio.get_running_loop(), context, command, print, lambda status, words: ended.set_result(status)
        )
        assert await asyncio.wait_for(ended, DEADLINE_S) == -number
        assert child.doing == Doing("score", "it did `reward`")


SAMPLING = Doing("roll", "it did `generate`")


@pytest.mark.parametrize(
    ("doing", "reason", "error"),
    [
        (SAMPLING, "no progress for 4 s", "the engine died while it did `generate`: no progress for 4 s"),
        (Doing(), "exit status 1", "the engine died: exit status 1"),
    ],
)
def test_an_engines_end_is_told_with_what_it_did(doing: Doing, reason: str, error: str) -> None:
    """What the kernel kills may live on another host; no user's code runs in it."""
    failed = blamed(doing, reason, doing.stage or "roll")
    assert (failed.kind, failed.blame, failed.error) == ("engine", doing.stage or "roll", error)
