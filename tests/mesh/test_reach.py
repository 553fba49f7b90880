"""A member that can dial the others but cannot be dialled by them gets no work, and both sides say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts import lacks
from tests.support.mesh import Daemon, Mesh
from tests.support.sites import TwoSites
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks())
NOTICES_S = 60.0
VERSIONS = ("init", "learn.apply")  # which each makes for itself, as it hears of the run: nobody has to fetch them


def problems(mesh: Mesh, node: Daemon) -> list[str]:
    """Keys of what the daemon says is wrong, without whom they are about."""
    return [problem["key"].partition("/")[0] for problem in mesh.ask(node, "status")["problems"]]


def parted(mesh: Mesh, node: Daemon) -> set[str]:
    """Members that cannot talk to some other one, as the daemon heard: until all say so a way seems to lead there."""
    return {member["name"] for member in mesh.ask(node, "nodes")["nodes"] if member["apart"]}


@pytest.mark.parametrize("lane", ["control", pytest.param("bulk", marks=pytest.mark.slow)])
def test_who_announces_an_address_that_leads_nowhere_gets_no_work_until_it_is_mended(tmp_path: Path, lane: str) -> None:
    """127.0.0.1 in the configuration of one host: it finds everybody, and nobody could fetch what it makes."""
    pipeline = toy_pipeline(partitions=8, generate_s=0.1)
    with TwoSites(tmp_path, 4) as mesh:
        *others, wrong = mesh.running()
        asked, right = others[0], getattr(wrong, lane)
        assert mesh.terminate(wrong) == 0
        setattr(wrong, lane, f"tcp://127.0.0.1:{right.rpartition(':')[2]}")
        mesh.launch(wrong)
        mesh.until(lambda: all("membership.unreached" in problems(mesh, node) for node in others), NOTICES_S)
        mesh.until(lambda: all(parted(mesh, node) >= {each.name for each in others} for node in others), NOTICES_S)
        mesh.until(lambda: any("membership.unreachable" in line for line in wrong.log_lines()), NOTICES_S)
        assert mesh.states(asked)[wrong.name] == "alive"
        run = mesh.submit(asked, pipeline, nonce="1")
        assert ended(mesh, run, others)["state"] == "done"
        assert [
            row["id"]
            for row in mesh.ask(asked, "tasks", run=run)["tasks"]
            if row["node"] == wrong.name and row["stage"] not in VERSIONS
        ] == []
        assert mesh.terminate(wrong) == 0
        setattr(wrong, lane, right)
        mesh.launch(wrong)
        await_stable(mesh)
        assert not [key for node in mesh.running() for key in problems(mesh, node) if "reach" in key]
        run = mesh.submit(asked, pipeline, nonce="2")
        assert ended(mesh, run)["state"] == "done"
        assert wrong.name in {row["node"] for row in mesh.ask(asked, "tasks", run=run)["tasks"]}
