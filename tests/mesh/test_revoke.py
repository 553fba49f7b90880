"""Taking keys off the allow-list of a mesh that runs: who is off gets nothing more, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_protocols.wire.keys import key_text
from tests.support.mesh import Mesh
from tests.support.toy import toy_pipeline
from tests.support.until import until


def test_a_revoked_node_is_cut_off_while_it_works_and_may_come_back(tmp_path: Path) -> None:
    """A host that is handed back must not go on reading weights; taken off by mistake, it needs no restart."""
    pipeline = toy_pipeline(steps=16, generate_s=0.05)
    allow = tmp_path / "allow"
    with Mesh(tmp_path, 3) as mesh:
        first, second, revoked = mesh.nodes.values()
        run = mesh.submit(first, pipeline)
        mesh.until(lambda: mesh.ask(revoked, "run", run=run)["step"] >= 2, 60)
        assert main(["keys", "revoke", str(allow), "n2"]) == 0
        mesh.until(lambda: all(mesh.states(node)["n2"] == "dead" for node in (first, second)), 60)
        served = mesh.ask(first, "status")["traffic"]["bulk"].get(revoked.id, {}).get("sent", 0)
        mesh.until(lambda: mesh.ask(first, "run", run=run)["state"] == "done", 120)
        assert mesh.ask(first, "status")["traffic"]["bulk"].get(revoked.id, {}).get("sent", 0) == served
        assert all(any("transport.revoked" in line for line in node.log_lines()) for node in (first, second))
        weights = mesh.ask(second, "run", run=run)["weights"]
        key = key_text(revoked.keys.public)
        assert main(["keys", "authorize", str(allow), key, "n2"]) == 0
        mesh.until(lambda: all(mesh.states(node)["n2"] == "alive" for node in (first, second)), 60)
        mesh.until(lambda: mesh.ask(revoked, "run", run=run)["weights"] == weights, 120)


def test_a_revoked_client_hears_nothing_more(tmp_path: Path) -> None:
    """Not even the answer to a question that it put before."""
    with Mesh(tmp_path, 1) as mesh:
        node = mesh.nodes["n0"]
        assert mesh.ask(node, "status")["members"] == 1
        assert main(["keys", "revoke", str(tmp_path / "allow"), "client"]) == 0
        until(lambda: any("transport.revoked" in line for line in node.log_lines()), 30, mesh.story)
        with pytest.raises(TimeoutError):
            mesh.ask(node, "status", deadline_s=0.5)
