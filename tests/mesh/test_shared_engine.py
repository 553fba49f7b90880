"""Several partitions in one engine, on real daemons: what ends the engine, or its daemon, takes all of them with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable, ended, strike
from tests.support.toy import toy_pipeline

SEES_S = 60.0  # until several are seen running
SPEC = toy_pipeline(steps=4, partitions=12, generate_s=0.5, at_once=4)


def shared(mesh: Mesh, node: Daemon) -> int:
    """The process that works on several partitions there now; 0: none does."""
    slots = mesh.ask(node, "status")["engine"]["slots"]
    return next((int(slot["pid"]) for slot in slots if slot["task"].count("/roll/") > 1), 0)


def test_whatever_ends_an_engine_amid_several_partitions_changes_nothing(tmp_path: Path) -> None:
    """They are tried again, alone or elsewhere. No host withdraws: one death is not a failure of each of them."""
    with Mesh(tmp_path, 3) as mesh:
        await_stable(mesh)
        asked, other, victim = mesh.running()
        run = mesh.submit(asked, SPEC)
        os.kill(mesh.until(lambda: shared(mesh, other), SEES_S), signal.SIGKILL)
        mesh.until(lambda: any("engine.died" in line for line in other.log_lines()), SEES_S)
        assert mesh.until(lambda: shared(mesh, victim), SEES_S)
        strike(mesh, victim)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(SPEC))
        assert not any("withdrawn" in line for node in (asked, other) for line in node.log_lines())
