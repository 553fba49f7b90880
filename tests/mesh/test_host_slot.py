"""A host whose updates have a slot of their own, beside the engines': in a child that is as dispensable as they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.mesh import Daemon, Mesh
from tests.support.strike import all_stages, ended

SEES_S = 60.0  # until an update is seen running
SPEC = all_stages(steps=2, apply_s=1.0)


def host_child(mesh: Mesh, node: Daemon) -> int:
    """The process that makes an update there now; 0: none does."""
    slots = mesh.ask(node, "status")["engine"]["slots"]
    return next((int(slot["pid"]) for slot in slots if slot["kind"] == "host" and slot["task"].endswith("apply")), 0)


def test_an_update_whose_child_is_killed_is_made_again(tmp_path: Path) -> None:
    """Nobody waits for more than one update, the engines' slots go on, and the weights are those of an undisturbed run;
    also of one whose updates were made in the engines' slots."""
    mesh = Mesh(tmp_path, 2, "[engine]\nhost_slots = 1")
    mesh.nodes["n1"].environment = {"DFLOWD_ENGINE_HOST_SLOTS": "0"}
    node = mesh.nodes["n0"]
    with mesh:
        undisturbed = ended(mesh, mesh.submit(node, SPEC, nonce="1"))
        engines = node.children()
        run = mesh.submit(node, SPEC, nonce="2")
        victim = mesh.until(lambda: host_child(mesh, node), SEES_S)
        os.kill(victim, signal.SIGKILL)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", undisturbed["weights"])
        assert set(engines) - {victim} <= set(node.children())
        assert any("engine.died" in line for line in node.log_lines())
