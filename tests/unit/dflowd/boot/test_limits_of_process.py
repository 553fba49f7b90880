"""Limits of the shell under which a daemon cannot work, and faults that nobody caught, are told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dflow_protocols.events import Report
from dflowd.boot.preflight import tasks_left
from dflowd.process.faults import Faults
from dflowd.process.host import Host
from tests.support.mesh import Mesh
from tests.unit.dflowd.transport.lanes import until


@pytest.mark.parametrize(
    ("limit", "words"),
    [("-f 1024", "ulimit -f"), ("-n 64", "ulimit -n"), ("-v 1500000", "ulimit -v"), ("-t 3600", "ulimit -t")],
)
def test_a_limit_that_would_stop_a_run_keeps_the_daemon_from_starting(tmp_path: Path, limit: str, words: str) -> None:
    """Else the run stands at step 0 for ever, or its daemon is killed in the middle of the night."""
    (node,) = (mesh := Mesh(tmp_path, 1)).nodes.values()
    mesh.write_config(node)
    command = f"ulimit {limit}; exec {sys.executable} -m dflowd run --config {node.config}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {node.config}: limits of this process: ")
    assert words in hint


def test_tasks_are_counted_over_all_control_groups(tmp_path: Path) -> None:
    """A container's limit counts as that of its unit."""
    (tmp_path / "own").write_text("0::/a/b\n")
    for folder, most, used in (("a", "100", "90"), ("a/b", "max", "5")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pids.max").write_text(most)
        (tmp_path / folder / "pids.current").write_text(used)
    assert tasks_left(tmp_path / "own", tmp_path) == 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_what_nobody_catches_is_told_and_a_lost_thread_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a callback, a task or a thread must not go to the output alone."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    told: list[Report] = []
    ends: list[bool] = []
    loop = asyncio.get_running_loop()
    faults = Faults(Host(loop, print, told.append), lambda: ends.append(True))
    faults.install()

    def break_down() -> None:
        raise OSError("no more")

    loop.call_soon(break_down)
    await until(lambda: told)
    assert (told[0].name, told[0].level, told[0].fields["error"]) == ("daemon.fault", "error", "OSError: no more")
    assert not ends
    threading.Thread(target=break_down, name="lane").start()
    await until(lambda: ends)
    assert faults.is_fatal
    assert told[-1].fields["where"] == "lane"
