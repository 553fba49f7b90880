"""A daemon that is asked to stop ends, by itself and with status 0: at any moment, and whatever holds it up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dflow_cli.app import main
from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("by_their_command")


def catches_sigterm(node: Daemon) -> bool:
    status = Path(f"/proc/{node.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


MOMENTS: dict[str, Callable[[Daemon], bool]] = {
    "it takes signals": catches_sigterm,
    "its state directory is there": lambda node: (node.folder / "state" / "lock").exists(),
    "it has an incarnation": lambda node: (node.folder / "state" / "kept" / "incarnation").exists(),
    "its address is known": lambda node: (node.folder / "state" / "address.json").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_daemon_that_is_stopped_while_it_starts_ends_well(tmp_path: Path, moment: str) -> None:
    """A service manager stops what it started a moment ago; what is left behind must not hinder the next start."""
    mesh = Mesh(tmp_path, 1)
    (node,) = mesh.nodes.values()
    mesh.launch(node)
    until(lambda: MOMENTS[moment](node), 30, mesh.story)
    assert mesh.terminate(node) == 0, mesh.story()
    with mesh:  # it starts again
        pass


def test_a_daemon_ends_by_its_time_whatever_became_of_its_peers(tmp_path: Path) -> None:
    """Words that are queued for a killed, a revoked or a stopped peer are not worth waiting for."""
    with Mesh(tmp_path, 4) as mesh:
        leaving, revoked, asleep, _ = mesh.nodes.values()
        mesh.submit(leaving, toy_pipeline(steps=500, generate_s=0.05))
        mesh.until(lambda: any("step.advanced" in line for line in leaving.log_lines()), 60)
        mesh.kill(revoked)
        assert main(["keys", "revoke", str(tmp_path / "allow"), "n1"]) == 0
        mesh.until(lambda: any("transport.revoked" in line for line in leaving.log_lines()), 30)
        os.kill(asleep.pid, signal.SIGSTOP)
        assert mesh.terminate(leaving) == 0, mesh.story()
        assert "daemon.stopped" in leaving.log_lines()[-1], mesh.story()


@pytest.fixture
def terminal() -> Iterator[None]:
    """Signals as a shell at a terminal leaves them: what runs in the background, or under nohup, inherits others."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("terminal")
def test_a_closed_terminal_and_ctrl_c_ask_as_sigterm_does(tmp_path: Path) -> None:
    """Whoever runs a daemon by hand ends it so; but under nohup it stays."""
    with Mesh(tmp_path, 2) as mesh:
        first, second = mesh.running()
        for node, number in ((first, signal.SIGHUP), (second, signal.SIGINT)):
            assert node.process is not None
            node.process.send_signal(number)
            assert node.process.wait(30) == 0, mesh.story()
            node.process = None
            assert "daemon.stopped" in node.log_lines()[-1]


def test_a_daemon_whose_log_takes_nothing_more_ends_by_its_time(tmp_path: Path) -> None:
    """A hung disk, or a reader that does not read, holds the loop up at any line: it still ends, and its engines do."""
    mesh = Mesh(tmp_path, 1)
    (node,) = mesh.nodes.values()
    mesh.write_config(node)
    node.config.write_text(node.config.read_text().replace('file = "log"', ""))
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "dflowd", "run", "--config", str(node.config)]
    node.process = subprocess.Popen(command, stderr=writer, start_new_session=True)
    try:
        mesh.submit(node, toy_pipeline(steps=5000, generate_s=0.01))
        (engine,) = until(node.children, 60)
        until(lambda: Path(f"/proc/{node.pid}/wchan").read_text().endswith("pipe_write"), 60)
        assert mesh.terminate(node) == 0
        until(lambda: not Path(f"/proc/{engine}").exists(), 30)
    finally:
        mesh.kill(node)
        os.close(reader)
        os.close(writer)
