"""A GPU that falls off under a daemon that lives: its slot takes no work, and the run goes on elsewhere.

The driver is simulated, the engines are emulated ones; daemons, engine children and bytes are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import gpus
from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import all_stages, await_stable, ended, running_tasks

SEES_S = 60.0  # of a hang; a loaded machine has its way
SPEC = all_stages()


def states(node: Daemon) -> Path:
    """Where the driver of its host reads how its GPUs are."""
    return node.folder / "gpus"


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    """Three daemons with a GPU each."""
    monkeypatch.setattr(Mesh, "start", staticmethod(gpus.start))
    made = Mesh(tmp_path, 3)
    for node in made.nodes.values():
        node.environment = {gpus.STATES: str(states(node))}
        gpus.set_gpus(states(node), True)
    with made:
        yield made


def seen(mesh: Mesh, name: str) -> dict[str, Any]:
    """A daemon, as another one tells of it."""
    asked = next(node for node in mesh.running() if node.name != name)
    (row,) = (row for row in mesh.ask(asked, "nodes")["nodes"] if row["name"] == name)
    return dict(row)


def works(mesh: Mesh, run: str, name: str) -> bool:
    """Whether a partition or a leaf runs there now."""
    tasks = running_tasks(mesh, run, "roll", "p") + running_tasks(mesh, run, "learn", "b")
    return any(row["node"] == name for row in tasks)


def reports(node: Daemon, name: str) -> list[str]:
    return [line for line in node.log_lines() if f" {name} " in line]


def drained_problems(mesh: Mesh, node: Daemon) -> list[dict[str, Any]]:
    """What `dflow doctor` says of its slots."""
    (share,) = (each for each in mesh.ask(node, "doctor")["members"] if each["name"] == node.name)
    return [each for each in share["problems"] if each["key"].startswith("slot.drained")]


def test_a_run_goes_on_where_gpus_work_and_comes_back_when_one_is_mended(mesh: Mesh) -> None:
    """The daemon stays a member with all that it holds, and says which slot and device are to be mended."""
    await_stable(mesh)
    victim = mesh.nodes["n1"]
    run = mesh.submit(mesh.nodes["n0"], SPEC, nonce="1")
    mesh.until(lambda: works(mesh, run, "n1"), SEES_S)
    gpus.set_gpus(states(victim), False)
    mesh.until(lambda: seen(mesh, "n1")["drained"], SEES_S)
    row = mesh.until(lambda: (row := seen(mesh, "n1"))["withdrawn"] and row, SEES_S)
    assert row["state"] == "alive"
    assert row["drained"] == [{"slot": 0, "why": "GPU 0 fell off the bus"}]
    assert {each["stage"] for each in row["withdrawn"]} >= {"roll", "learn", "heldout"}
    assert {each["error"] for each in row["withdrawn"]} == {"slot 0: GPU 0 fell off the bus"}
    assert row["gpus"][0]["fell_off"]
    answer = ended(mesh, run)
    assert (answer["state"], answer["step"]) == ("done", answer["steps"])
    assert answer["weights"] == weights_of(SPEC)

    (line,) = reports(victim, "slot.drained")
    assert "GPU 0" in line
    assert "slot=0" in line
    (problem,) = drained_problems(mesh, victim)
    assert problem["what"] == "slot 0 takes no work: GPU 0 fell off the bus"
    assert "restart the daemon" in problem["hint"]

    again = mesh.submit(mesh.nodes["n0"], SPEC, nonce="2")
    gpus.set_gpus(states(victim), True)
    mesh.until(lambda: works(mesh, again, "n1"), SEES_S)
    assert seen(mesh, "n1")["drained"] == []
    assert ended(mesh, again)["weights"] == weights_of(SPEC)
    assert drained_problems(mesh, victim) == []


def test_a_daemon_with_another_gpu_goes_on_with_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot less, and no stage is left to others: alone it ends the run."""
    monkeypatch.setattr(Mesh, "start", staticmethod(gpus.start))
    mesh = Mesh(tmp_path, 1)
    node = mesh.nodes["n0"]
    node.environment = {gpus.STATES: str(states(node))}
    gpus.set_gpus(states(node), True, True)
    with mesh:
        run = mesh.submit(node, SPEC)
        mesh.until(lambda: works(mesh, run, "n0"), SEES_S)
        gpus.set_gpus(states(node), False, True)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(SPEC))
        (row,) = mesh.ask(node, "nodes")["nodes"]
        assert row["drained"] == [{"slot": 0, "why": "GPU 0 fell off the bus"}]
        assert [gpu["fell_off"] for gpu in row["gpus"]] == [True, False]
