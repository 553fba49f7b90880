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

from dflowd.slots.process import ChildCommand, EngineChild
from tests.support.until import until

DEADLINE_S = 60.0
ENGINE = """
import os, subprocess, sys, time
from dflowd.engines.child import _tie_group
_tie_group(int(sys.argv[sys.argv.index("--lifeline") + 1]))
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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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
    if file.exists() and (pid := file.read_text().split()) and is_running(int(pid[0])):
        os.kill(int(pid[0]), signal.SIGKILL)


@pytest.mark.parametrize("way", ["killed", "exits", "closed"])
async def test_what_an_engine_started_ends_with_it(tmp_path: Path, engine: str, way: str) -> None:
    """However it ends: killed as hung, by an exit of its own, or with its daemon."""
    ended = asyncio.Event()
    command = ChildCommand(("-c", engine), dict(os.environ), tmp_path, "engine")
    with zmq.Context() as context:
        child = EngineChild(asyncio.get_running_loop(), context, command, print, lambda words: ended.set())
        pid = await asyncio.to_thread(sleeper, tmp_path)
        assert is_running(pid)
        if way == "killed":
            child.kill()
        elif way == "exits":
            (tmp_path / "end").touch()
        else:
            child.close()
        if way != "closed":
            await asyncio.wait_for(ended.wait(), DEADLINE_S)
        until(lambda: not is_running(pid), DEADLINE_S)
        child.close()


def test_what_an_engine_started_ends_when_its_daemon_is_killed(tmp_path: Path, engine: str) -> None:
    """A daemon that is killed can stop nobody: pools of its engines would score for ever for nobody."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, engine, str(tmp_path)])
    try:
        pid = sleeper(tmp_path)
        assert is_running(pid)
    finally:
        daemon.kill()
        daemon.wait()
    until(lambda: not is_running(pid), DEADLINE_S)
