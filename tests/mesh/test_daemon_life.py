"""A daemon's life as its operator sees it: start, wrong input, leaving, dying, and what it weighs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.alone import weights_of
from tests.support.launch import told_until_it_ends
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable, running_tasks
from tests.support.toy import toy_pipeline
from tests.support.until import until

HEAVY = ("torch", "transformers", "numpy", "safetensors", "tokenizers", "vllm")
RESIDENT_LIMIT_BYTES = 80_000_000

pytestmark = pytest.mark.usefixtures("by_their_command")


def refused_start(node: Daemon, status: int = 2) -> list[str]:
    """What a daemon that does not start says on standard error; its exit status must be this one."""
    command = [sys.executable, "-m", "dflowd", "run", "--config", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr.splitlines()


def test_a_daemon_is_light(tmp_path: Path) -> None:
    """Hundreds of hosts run it beside their engines; whoever imports a framework here costs each of them 300 MB."""
    began = time.monotonic()
    with Mesh(tmp_path, 2) as mesh:
        both_up_s = time.monotonic() - began
        node = mesh.nodes["n0"]
        maps = Path(f"/proc/{node.pid}/maps").read_text()
        assert not [name for name in HEAVY if f"/{name}/" in maps]
        resident = int(mesh.ask(node, "status")["memory"]["resident_bytes"])
        print(f"two daemons up and joined in {both_up_s:.2f} s; resident memory {resident / 1e6:.1f} MB")
        assert resident < RESIDENT_LIMIT_BYTES
    code = f"import sys, dflowd.daemon; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_port_in_use_names_the_key(tmp_path: Path) -> None:
    """The two lanes have keys of their own; the message says which one to change."""
    with Mesh(tmp_path, 1) as mesh:
        other = mesh.prepare()
        for key in ("control", "bulk"):
            free = getattr(other, key)
            setattr(other, key, getattr(mesh.nodes["n0"], key))
            mesh.write_config(other)
            assert refused_start(other, status=1) == [
                f"error: {other.config}: listen.{key}: `{getattr(other, key)}`: the address is in use",
                f"hint: stop what listens there, or give listen.{key} another port (0 takes a free one)",
            ]
            setattr(other, key, free)


def test_a_state_directory_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    """Unwritable, or another daemon's: both would otherwise show up much later."""
    with Mesh(tmp_path, 1) as mesh:
        twin = mesh.nodes["n0"]
        error, hint = refused_start(twin, status=1)  # which may be leaving
        assert error.endswith(f"node.state_dir: another daemon is running in `{twin.folder / 'state'}`")
        assert hint == "hint: give each daemon a state directory of its own"
        other = mesh.prepare()
        mesh.write_config(other)
        (other.folder / "state").write_text("a file where the folder should be")
        error, hint = refused_start(other)
        assert error.startswith(f"error: {other.config}: node.state_dir: `{other.folder / 'state'}` cannot be written")


def test_missing_keys_and_allow_lists_are_clear_errors(tmp_path: Path) -> None:
    """Without them nobody could be let in."""
    mesh = Mesh(tmp_path, 1)
    node = mesh.nodes["n0"]
    mesh.write_config(node)
    (node.folder / "key").rename(node.folder / "elsewhere")
    assert refused_start(node)[0].startswith(f"error: {node.folder / 'key'}")
    (node.folder / "elsewhere").rename(node.folder / "key")
    (tmp_path / "allow").write_text("not a key n0\n")
    error, hint = refused_start(node)
    assert "allow:1" in error
    assert hint.startswith("hint: ")


def test_a_clean_leave_is_seen_as_left_and_not_as_death(tmp_path: Path) -> None:
    """A member that said goodbye is not suspected, and nobody waits for it."""
    with Mesh(tmp_path, 3) as mesh:
        gone, *others = mesh.nodes.values()
        assert mesh.terminate(gone) == 0
        mesh.until(lambda: all(mesh.states(node)["n0"] == "left" for node in others), 30)
        assert not [line for node in others for line in node.log_lines() if "membership.died" in line]
        assert "daemon.stopped clean=True" in gone.log_lines()[-1]
        assert not (gone.folder / "state" / "address.json").exists()


def test_a_second_sigterm_ends_a_leaving_daemon_at_once(tmp_path: Path) -> None:
    """Who sends it does not want to wait for what only this node holds."""
    with Mesh(tmp_path, 1) as mesh:
        node = mesh.nodes["n0"]
        run = mesh.submit(node, toy_pipeline(steps=50, generate_s=0.2))
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"], 60)
        (engine,) = node.children()
        assert node.process is not None
        os.kill(engine, signal.SIGSTOP)  # which is to save the newest version
        os.kill(node.pid, signal.SIGTERM)
        until(lambda: any("daemon.leaving" in line for line in node.log_lines()), 30, mesh.story)
        assert told_until_it_ends(node.process, signal.SIGTERM) == 128 + signal.SIGTERM
        until(lambda: not Path(f"/proc/{engine}").exists(), 30)


def test_kill_9_takes_engines_and_shared_memory_along_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Nobody can clean up after a process that was killed, so there must be nothing to clean."""
    pipeline = toy_pipeline(steps=4, partitions=6, generate_s=0.4)
    with Mesh(tmp_path, 3) as mesh:
        await_stable(mesh)
        killed, *others = mesh.nodes.values()
        run = mesh.submit(killed, pipeline)

        def is_at_work() -> bool:
            return any(row["node"] == killed.name for row in running_tasks(mesh, run, "roll", "p"))

        mesh.until(is_at_work, 60)
        (engine,) = killed.children()
        mesh.kill(killed)
        began = time.monotonic()
        until(lambda: not Path(f"/proc/{engine}").exists(), 30)
        mesh.until(lambda: all(mesh.states(node)["n0"] == "dead" for node in others), 30)
        print(f"declared dead by all after {time.monotonic() - began:.1f} s")
        mesh.until(lambda: mesh.ask(others[0], "run", run=run)["state"] == "done", 120)
        weights = {mesh.ask(node, "run", run=run)["weights"] for node in others}
        assert any(task["origin"] == "again" for task in mesh.ask(others[0], "tasks", run=run)["tasks"])
    assert weights == {weights_of(pipeline)}


def test_an_engine_that_is_killed_costs_its_task_and_nothing_else(tmp_path: Path) -> None:
    """Engines run users' code and drivers' faults; the daemon's life must not hang on them."""
    with Mesh(tmp_path, 2) as mesh:
        node, other = mesh.nodes.values()
        run = mesh.submit(node, toy_pipeline(steps=6, generate_s=0.2))
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, 60)
        os.kill(node.children()[0], signal.SIGKILL)
        mesh.until(lambda: mesh.ask(other, "run", run=run)["state"] == "done", 120)
        assert mesh.states(other) == {"n0": "alive", "n1": "alive"}
        assert any("engine.died" in line for line in node.log_lines())


def test_a_restarted_daemon_knows_how_its_runs_ended(tmp_path: Path) -> None:
    """A run's outcome and figures are asked for long after it ended."""
    with Mesh(tmp_path, 1) as mesh:
        node = mesh.nodes["n0"]
        run = mesh.submit(node, toy_pipeline(steps=2))
        mesh.until(lambda: mesh.ask(node, "run", run=run)["state"] == "done", 60)
        before = mesh.ask(node, "run", run=run)
        mesh.kill(node)
        mesh.launch(node)
        mesh.await_all()
        after = mesh.ask(node, "run", run=run)
        assert (after["state"], after["weights"], after["step"]) == ("done", before["weights"], 2)
        assert after["checkpoint"] == before["checkpoint"]
        assert [row["step"] for row in mesh.ask(node, "metrics", run=run)["rows"]] == [0, 1, 2]


def test_a_service_manager_is_told_when_it_is_ready_and_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts what depends on it then, and not before; and it restarts a daemon whose loop hangs."""
    address = f"dflowd-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + address)
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + address)
        line.settimeout(60)
        with Mesh(tmp_path, 1) as mesh:
            assert line.recv(64) == b"READY=1"
            assert [line.recv(64) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            mesh.terminate(mesh.nodes["n0"])
            while (told := line.recv(64)) == b"WATCHDOG=1":
                pass
            stopping, extended = told.decode().split("\n")
            assert stopping == "STOPPING=1"
            assert int(extended.removeprefix("EXTEND_TIMEOUT_USEC=")) > 5e6, "the mesh's leave_timeout_s"
