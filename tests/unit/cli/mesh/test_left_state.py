"""What a `dflow run` leaves of its daemons' state is what is worth something, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_cli.mesh import localmesh, statefiles
from dflow_cli.mesh.meshfiles import MeshFile, prepare_node, write_mesh
from dflow_protocols.names import RunId
from dflow_protocols.run_state import status as runs
from tests.unit.cli.left import RUN, come_home, leave


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DIR of a `dflow run` that is over, with one daemon's folder."""
    write_mesh(tmp_path, MeshFile(False, (prepare_node(tmp_path, "n0", (15001, 15002)),), is_of_run=True))
    return tmp_path


@pytest.mark.parametrize("state", [runs.ACTIVE, runs.FAILED])
def test_checkpoints_of_a_run_that_may_go_on_are_kept_though_its_figures_are_home(
    folder: Path, state: runs.Lifecycle
) -> None:
    """Hours of training lie there, damaged or not."""
    books = leave(folder, state, saved=True)
    come_home(folder, state)
    assert statefiles.forget_what_is_home(folder)
    assert (books / "checkpoints/step-000050").is_dir()


def test_a_finished_run_is_kept_until_its_results_are_home(folder: Path) -> None:
    """A full disk, or a command that was killed at the very end, must not cost the run."""
    books = leave(folder, runs.FINISHED, saved=True)
    assert statefiles.forget_what_is_home(folder)
    assert books.is_dir()
    come_home(folder, "done")
    assert not statefiles.forget_what_is_home(folder)
    assert not (folder / "n0/state").exists()


def test_figures_of_a_killed_run_are_kept_and_a_run_that_got_nowhere_is_not(folder: Path) -> None:
    """What nobody has computed nobody misses."""
    leave(folder, runs.ACTIVE, steps=3)
    leave(folder, runs.ACTIVE, RunId("ab" * 16), steps=0)
    assert statefiles.forget_what_is_home(folder)
    assert [(kept.run, kept.reached) for kept in statefiles.kept_runs(folder)] == [(RUN, 3)]


def test_a_status_that_cannot_be_read_is_left_alone(folder: Path) -> None:
    """It may be of another release, whose checkpoints are beside it."""
    leave(folder, runs.FINISHED)
    come_home(folder, "done")
    strange = folder / "n0/state/kept/runs/strange"
    strange.write_bytes(b"?")
    assert statefiles.forget_what_is_home(folder)
    assert strange.exists()


def test_a_run_that_waits_is_given_up_where_no_daemon_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its checkpoints may be large; what came home stays."""
    leave(folder, runs.FAILED, saved=True)
    come_home(folder, "failed")
    assert main(["cancel", RUN[:8], "--dir", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": RUN, "state": "cancelled"}
    assert not (folder / "n0/state").exists()
    assert statefiles.is_home(folder, RUN, "failed")


def test_a_run_of_a_mesh_that_was_started_to_stay_is_for_its_daemons_to_cancel(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On other hosts there may be more of it."""
    write_mesh(folder, MeshFile(True, (prepare_node(folder, "n0", (15001, 15002)),)))
    leave(folder, runs.FAILED, saved=True)
    assert main(["cancel", RUN[:8], "--dir", str(folder)]) == 2
    assert "dflow up" in capsys.readouterr().err


def test_what_waits_is_resumed_by_name_or_told_why_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any daemon is started."""
    leave(folder, runs.CANCELLED)
    assert main(["resume", RUN[:8], "--dir", str(folder)]) == 2
    assert "does not wait here to be resumed" in capsys.readouterr().err
    assert main(["resume", "abcd", "--dir", str(folder)]) == 2
    assert "no run `abcd` is kept here" in capsys.readouterr().err
    assert localmesh.running(folder) is None
