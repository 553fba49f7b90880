"""A mesh whose hosts have IPv6 addresses only."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dflow_protocols.wire.keys import key_text
from tests.support.dflow import answer, dflow
from tests.support.mesh import Mesh
from tests.support.strike import ended
from tests.support.toy import toy_pipeline


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_mesh_trains_over_ipv6_and_its_commands_reach_it(tmp_path: Path) -> None:
    """Both lanes, the dial-back, seeds, the client and the doctor: each writes and reads addresses for itself."""
    with Mesh(tmp_path, 2, host="[::1]") as mesh:
        first, second = mesh.running()
        run = mesh.submit(first, toy_pipeline(steps=2))
        assert ended(mesh, run)["state"] == "done"
        bulk = mesh.ask(second, "status")["traffic"]["bulk"]
        assert any(count["received"] for count in bulk.values()), "nothing came over the bulk lane"
        line = dflow("keys", "show", "--dir", tmp_path / "me", "--name", "me")
        with (tmp_path / "allow").open("a") as file:
            file.write(line)
        door = f"{key_text(first.keys.public)}@{first.control.removeprefix('tcp://')}"
        nodes = answer("nodes", "--dir", tmp_path / "me", "--to", door)["nodes"]
        assert {(node["name"], node["state"]) for node in nodes} == {("n0", "alive"), ("n1", "alive")}
        assert {node["control"] for node in nodes} == {first.control, second.control}
        assert answer("doctor", "--dir", tmp_path / "me", "--to", door)["wrong"] == 0
