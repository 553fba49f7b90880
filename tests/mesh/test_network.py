"""A network on which not everybody reaches everybody, and what a test of networks leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.alone import weights_of
from tests.support.hosts import Hosts, lacks
from tests.support.repository import ROOT
from tests.support.sites import HostMesh
from tests.support.strike import all_stages, ended
from tests.support.toy import toy_pipeline

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks())
KILLED = """
import os, signal, subprocess
from tests.support.hosts import Hosts
with Hosts({"a": "10.0.0.2"}) as hosts:
    print(hosts.start("a", ["sleep", "600"], ".", subprocess.DEVNULL).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def spaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    return {line.split()[0] for line in listed.stdout.splitlines()}


def test_two_members_that_cannot_talk_end_as_all_do(tmp_path: Path) -> None:
    """A firewall between two of three hosts: the third one reaches both, so nobody is dead and nothing is lost."""
    with HostMesh(tmp_path, 3) as mesh:
        mesh.links.cut(("n1", "n2"))
        run = mesh.submit(mesh.running()[1], all_stages(steps=2))
        end = ended(mesh, run)
        assert (end["state"], end["weights"]) == ("done", weights_of(all_stages(steps=2)))
        assert not any("membership.died" in line for node in mesh.nodes.values() for line in node.log_lines())
        told = mesh.ask(mesh.nodes["n1"], "tasks", run=run)
        assert told["missing"] == []  # what n2 knows comes to n1 by way of n0


@pytest.mark.skipif(bool(lacks("nft")), reason=lacks("nft"))
def test_where_long_packets_are_lost_a_run_ends_as_anywhere(tmp_path: Path) -> None:
    """A tunnel on the way takes less than both ends believe: pings pass, and no gradient does."""
    with HostMesh(tmp_path, 3) as mesh:
        mesh.links.drop_longer(1000)
        run = mesh.submit(mesh.running()[1], all_stages(steps=2))
        end = ended(mesh, run)
        assert (end["state"], end["weights"]) == ("done", weights_of(all_stages(steps=2)))
        lines = [line for node in mesh.nodes.values() for line in node.log_lines()]
        assert not any("membership.died" in line for line in lines)
        assert any("transport.short_only" in line for line in lines)


def test_a_daemon_behind_a_slow_link_arrives(tmp_path: Path) -> None:
    """Its copy of a version takes several steps of the others. They keep what follows it, so it trains in the end."""
    pipeline = toy_pipeline(steps=500, partitions=8, parameters=1_000_000, generate_s=0.3, gradient_s=0.3)
    with HostMesh(tmp_path, 3) as mesh:
        asked, late = mesh.nodes["n0"], mesh.nodes["n2"]
        mesh.kill(late)
        run = mesh.submit(asked, pipeline)
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= 2, 60)
        mesh.links.narrow(20, late.name)  # a state takes five seconds, a gradient less than two
        mesh.launch(late)

        def trains() -> bool:
            rows = mesh.ask(asked, "tasks", run=run)["tasks"]
            return any(row["node"] == late.name and row["stage"] == "learn" for row in rows)

        mesh.until(trains, 180)
        assert mesh.ask(asked, "cancel", run=run)["state"] == "cancelled"


def test_networks_of_a_process_that_was_killed_are_removed_with_what_runs_there() -> None:
    """A test run that is aborted must not fill the machine: the next one tidies up."""
    dead = subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    said, _ = dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL
    left = {space for space in spaces() if space.startswith(f"dh{dead.pid}x")}
    assert left
    with Hosts({"b": "10.0.0.3"}):
        assert not left & spaces()
    status = Path(f"/proc/{int(said)}/stat")
    assert not status.exists() or ") Z " in status.read_text()
