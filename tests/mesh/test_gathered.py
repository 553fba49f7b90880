"""What all daemons know together, asked of any one: reports, shards, and the files of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.support.mesh import Mesh, Refused
from tests.support.toy import toy_pipeline


@pytest.fixture(scope="module")
def run(mesh: Mesh) -> str:
    """A run whose shards were seen while it went on, and that is over."""
    node = mesh.nodes["n0"]
    name = mesh.submit(node, toy_pipeline(steps=3, generate_s=0.05))
    seen: dict[str, set[str]] = {}

    def is_over() -> bool:
        for share in mesh.ask(node, "shards", run=name)["nodes"]:
            seen.setdefault(share["node"], set()).update(row["kind"] for row in share["shards"])
        return bool(mesh.ask(node, "run", run=name)["state"] == "done")

    mesh.until(is_over, 120)
    assert set(seen) == {"n0", "n1", "n2"}
    assert {"params:policy", "roll.rollout"} <= set().union(*seen.values())
    return name


def test_reports_of_all_daemons_come_in_one_order_and_only_the_new_ones_when_asked_again(mesh: Mesh, run: str) -> None:
    """Who follows a log sees each line once, whichever daemon wrote it."""
    node = mesh.nodes["n1"]

    def has_ended_everywhere() -> bool:
        told = mesh.ask(node, "events", run=run, limit=1000)["events"]
        return {event["node"] for event in told if event["name"] == "run.ended"} == {"n0", "n1", "n2"}

    mesh.until(has_ended_everywhere, 60)
    first = mesh.ask(node, "events", run=run, limit=1000)
    times = [event["time_s"] for event in first["events"]]
    assert times == sorted(times)
    again = mesh.ask(node, "events", run=run, limit=1000, after=first["heard"])
    assert again["events"] == []
    assert mesh.ask(node, "events", level="warning", run=run)["events"] == []
    with pytest.raises(Refused, match="no level `loud`"):
        mesh.ask(node, "events", level="loud")


def test_a_checkpoint_comes_from_the_disk_of_another_daemon_byte_for_byte(mesh: Mesh, run: str) -> None:
    """The client may be elsewhere, and know one daemon only."""
    found = mesh.ask(mesh.nodes["n0"], "checkpoints", run=run)["checkpoints"]
    assert len({row["node"] for row in found}) >= 2
    for row in found:
        for asked in mesh.running():
            where = {"run": run, "step": row["step"], "node_id": row["node_id"]}
            listed = mesh.ask(asked, "checkpoint.files", **where)
            assert listed["version"] == row["version"]
            assert "dflow.json" in [file["name"] for file in listed["files"]]
            for file in listed["files"]:
                data = whole(mesh, asked, file, where)
                assert data == (Path(row["folder"]) / file["name"]).read_bytes()
                assert blake3(data).hexdigest() == file["digest"]


def whole(mesh: Mesh, asked: Any, file: dict[str, Any], where: dict[str, Any]) -> bytes:
    data = b""
    while len(data) < file["bytes"]:
        data += mesh.ask(asked, "checkpoint.read", **where, name=file["name"], offset=len(data))["data"]
    return data


@pytest.mark.parametrize("name", ["../../../key", "/etc/passwd", "..", ""])
def test_nothing_but_a_checkpoints_own_files_is_read(mesh: Mesh, run: str, name: str) -> None:
    """A daemon's key lies a few folders above."""
    row = mesh.ask(mesh.nodes["n0"], "checkpoints", run=run)["checkpoints"][0]
    where = {"run": run, "step": row["step"], "node_id": row["node_id"], "name": name, "offset": 0}
    for asked in mesh.running():
        with pytest.raises(Refused):
            mesh.ask(asked, "checkpoint.read", **where)
