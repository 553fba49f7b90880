"""Hostile input to both lanes, in the middle of a run: strangers, a client's key, a node's key."""

from __future__ import annotations

import os
from pathlib import Path

from dflow_protocols.names import RunId
from dflow_protocols.wire.keys import key_text
from dflowd.transport.keys import new_key_pair
from tests.support import attack
from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline

GROWTH_BYTES = 100 << 20  # far above noise; an unbounded queue passes it in a second


def test_a_run_ends_right_whatever_is_thrown_at_a_daemon(tmp_path: Path) -> None:
    """Nothing crashes, nothing grows, nobody gets what is not his, and the weights are those of a quiet run."""
    pipeline = toy_pipeline(steps=8, generate_s=0.2)
    with Mesh(tmp_path, 2) as mesh:
        liar_keys, client = mesh.prepare().keys, new_key_pair()
        with (tmp_path / "allow").open("a") as allow_list:
            allow_list.write(f"{key_text(client.public)} attacker client\n")
        node, other = mesh.running()
        calm = mesh.submit(other, pipeline, nonce="calm")
        mesh.until(lambda: mesh.ask(other, "run", run=calm)["state"] == "done", 120)
        run = mesh.submit(other, pipeline, nonce="stormy")
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, 60)
        before, open_files = resident(mesh, node), descriptors(node)

        gained = [
            attack.connections(node.control, 200),
            attack.connections(node.bulk, 200),
            attack.garbage(node.control, 21),
            attack.garbage(node.bulk, 21),
            attack.unlisted_keys(node, 3),
            attack.stolen_names(node, [node.id, other.id], 4),
        ]
        assert sum(each.answered for each in gained) == 0, "a stranger got more than ZeroMQ's greeting"
        assert attack.broken_frames(node, client, 80).answered == 0
        attack.wrong_requests(node, client, 100)
        attack.unread_answers(node, client, 100)
        liar = attack.Liar(node, liar_keys, RunId(run))
        assert attack.broken_frames(node, liar_keys, 80).answered == 0
        liar.greedy_fetches([], 5)
        liar.endless_message(64 << 20)
        liar.lies(200)

        mesh.until(lambda: mesh.ask(other, "run", run=run)["state"] == "done", 120)
        assert mesh.ask(node, "run", run=run)["weights"] == mesh.ask(node, "run", run=calm)["weights"]
        assert resident(mesh, node) - before < GROWTH_BYTES
        mesh.until(lambda: descriptors(node) < open_files + 32, 60)
        told = "\n".join(node.log_lines())
        for name in ("transport.stranger", "transport.cut", "wire.refused"):
            assert name in told
        for fault in ("driver.handle_failed", "driver.perform_failed", "transport.fault", "service.failed"):
            assert fault not in told, mesh.story()


def test_a_log_says_whose_key_submitted_and_cancelled(tmp_path: Path) -> None:
    """Who may speak is trusted, and still answers for what it did."""
    with Mesh(tmp_path, 1) as mesh:
        node = mesh.nodes["n0"]
        run = mesh.submit(node, toy_pipeline(steps=500, generate_s=0.2))
        mesh.ask(node, "cancel", run=run)
        for name in ("audit.submitted", "audit.cancelled"):
            line = next(line for line in node.log_lines() if name in line)
            assert f"run={run}" in line
            assert "by=client" in line
            assert f"key={mesh.client.id}" in line


def resident(mesh: Mesh, node: Daemon) -> int:
    return int(mesh.ask(node, "status")["memory"]["resident_bytes"])


def descriptors(node: Daemon) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))
