"""Who is not started again may have what others have not: it is told before anybody misses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dflow_cli.kept import left_out
from dflow_cli.mesh.statefiles import KeptRun
from dflow_protocols.run_state import status as runs
from tests.unit.cli.left import RUN, leave, status_of


def test_daemons_that_are_left_out_are_named_with_what_starts_them(tmp_path: Path) -> None:
    """Also where nothing depends on them."""
    leave(tmp_path, runs.FINISHED)
    shutil.copytree(tmp_path / "n0", tmp_path / "n1")
    (tmp_path / "n1/config.toml").touch()
    assert left_out.left_out(tmp_path, ["n0", "n1"]) == []
    (line,) = left_out.told(tmp_path, left_out.left_out(tmp_path, ["n0"]))
    place = f"--dir {tmp_path}"
    assert line == f"left out: n1; `dflow down {place}`, then `dflow up --nodes 2 {place}` starts all"


@pytest.mark.parametrize(
    ("state", "saved", "said"),
    [
        (runs.FAILED, {"n0": 5, "n1": 9}, "of step 9 lies on n1 only: without them it goes on at step 5"),
        (runs.ACTIVE, {"n1": 9}, "of step 9 lies on n1 only: without them it begins at step 0"),
        (runs.FINISHED, {"n1": 9}, "of step 9 lies on n1 only: without them there is none of its end"),
        (runs.FAILED, {"n0": 9, "n1": 9}, ""),
        (runs.CANCELLED, {"n1": 9}, ""),
    ],
)
def test_a_checkpoint_that_only_they_hold_is_told(
    state: runs.Lifecycle, saved: dict[str, int], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run would go on from an older one, or from nothing, and nobody would know."""
    places = {name: {step: tmp_path} for name, step in saved.items()}
    status = status_of(state)
    kept = KeptRun(status, runs.told(status), ("n0", "n1"), places, (tmp_path,), 9)
    monkeypatch.setattr(left_out, "kept_runs", lambda folder: [kept])
    told = left_out.told(tmp_path, ["n1"])[1:]
    assert told == ([f"run {RUN[:8]}: its checkpoint {said}"] if said else [])


def test_checkpoints_on_the_disks_of_a_folder_are_found_whoever_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of one run, by the daemon and the step."""
    status = status_of(runs.FINISHED)
    kept = KeptRun(status, "done", ("n0", "n1"), {"n1": {4: tmp_path, 2: tmp_path}}, (tmp_path,), 4)
    monkeypatch.setattr(left_out, "find_kept", lambda folder, run: [kept])
    assert left_out.lying_in(tmp_path, RUN) == [{"node": "n1", "step": 2}, {"node": "n1", "step": 4}]
