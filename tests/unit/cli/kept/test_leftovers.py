"""Where no daemon runs commands answer from the folder, and say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.app import main
from dflow_cli.kept.ended import cut_short, going_on
from dflow_cli.mesh.meshfiles import MeshFile, prepare_node, write_mesh
from dflow_protocols.names import RunId
from dflow_protocols.run_state import status as runs
from tests.unit.cli.left import RUN, come_home, leave

OTHER = RunId("77ab" * 8)
LOG = """2026-11-27T09:48:09.141Z info step.advanced run={run} step=2 seconds=0.25
a line that somebody else wrote
2026-11-27T09:48:10.000Z warning task.failed run={run} error="score.py:3: \\"no\\" good"
2026-11-27T09:48:11.000Z info daemon.stopped clean=True
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DIR of one daemon that was killed in the middle of a run."""
    write_mesh(tmp_path, MeshFile(True, (prepare_node(tmp_path, "n0", (15001, 15002)),)))
    books = leave(tmp_path, runs.ACTIVE, steps=0)
    row = {"version": "v", "samples_total": 8, "time_s": 1.0, "own_step_s": 2.0, "sums": {"samples": 8.0}}
    (books / "metrics.jsonl").write_text("".join(json.dumps({"step": step, **row}) + "\n" for step in (1, 2)))
    (books / "metrics.jsonl.1").write_text(json.dumps({"step": 0, **row}) + "\n")
    cost = {"life": 1.0, "step": 1, "busy_s": 1.5, "seconds": {"roll": 1.5}}
    (books / "costs.jsonl").write_text(json.dumps(cost) + "\n{torn")
    task = {"id": "1/roll/p0", "stage": "roll", "step": 1, "state": "done", "stolen": False, "origin": "dealt"}
    (books / "tasks.jsonl").write_text(json.dumps({**task, "started": 3.0, "seconds": 1.5, "life": 1.0}) + "\n")
    (tmp_path / "n0/log").write_text(LOG.format(run=RUN))
    return tmp_path


def told(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[Any], str]:
    """The objects that a command prints, and what it notes."""
    assert main([*words, "--dir", str(folder)]) == 0
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_what_a_killed_daemon_wrote_answers_and_says_from_where(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mesh that has gone is no reason to lose what it measured."""
    (answer,), said = told(folder, capsys, "ps", "--json")
    assert said == f"no daemon runs here; this is what {folder} keeps of it\n"
    assert answer["from_folder"] == str(folder)
    assert [(run["run"], run["state"], run["step"]) for run in answer["runs"]] == [(RUN, "active", 2)]
    rows, _ = told(folder, capsys, "metrics", RUN[:8])
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert (rows[2]["compute_s"], rows[2]["mesh_s"]) == (1.5, 0.5)
    (answer,), _ = told(folder, capsys, "tasks", RUN, "--json")
    assert [(task["id"], task["node"]) for task in answer["tasks"]] == [("1/roll/p0", "n0")]
    assert main(["nodes", "--json", "--dir", str(folder)]) == 3  # scripts ask so whether there are some
    answer = json.loads(capsys.readouterr().out)
    assert [(node["name"], node["state"]) for node in answer["nodes"]] == [("n0", "down")]


def test_logs_are_read_back_from_their_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By run and level, as a daemon tells them; `--follow` ends, since nothing can come."""
    rows, _ = told(folder, capsys, "logs", RUN, "--json", "--follow")
    assert [row["name"] for row in rows] == ["step.advanced", "task.failed"]
    assert rows[0]["fields"] == {"run": RUN, "step": 2, "seconds": 0.25}
    assert rows[1]["fields"]["error"] == 'score.py:3: "no" good'
    rows, _ = told(folder, capsys, "logs", "--json", "--level", "warning")
    assert [row["name"] for row in rows] == ["task.failed"]


def test_who_stops_daemons_under_a_run_is_told_what_is_kept(folder: Path) -> None:
    """A checkpoint that took longer than daemons have to leave is missing, and so are its steps."""
    place = f"--dir {folder}"
    told = f"run {RUN[:8]} is kept at step 0; 2 steps after it were not saved: `dflow up {place}` goes on"
    assert cut_short(folder) == [told]
    write_mesh(folder, MeshFile(False, (), is_of_run=True))
    assert cut_short(folder)[0].endswith(f"`dflow resume {RUN[:8]} {place}` goes on")


def test_a_run_that_was_stopped_before_its_first_checkpoint_is_not_to_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dflow ps` named `dflow resume RUN`, which refused; one that is kept beside what came home goes on."""
    write_mesh(tmp_path, MeshFile(False, (), is_of_run=True))
    come_home(tmp_path, "stopped")
    assert main(["ps", "--dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "nothing of it is kept" in said
    assert "resume" not in said
    leave(tmp_path, runs.FAILED, OTHER, saved=True)
    come_home(tmp_path, "failed", OTHER)
    (answer,), _ = told(tmp_path, capsys, "ps", "--json")
    assert {run["run"]: run["gone"] for run in answer["runs"]} == {RUN: True, OTHER: False}


@pytest.mark.parametrize("kept", [False, True])
def test_of_a_run_whose_results_are_home_it_is_said_where_they_lie(tmp_path: Path, kept: bool) -> None:
    """Who was impatient when all was done read that the run got nowhere and that nothing is left."""
    if kept:
        leave(tmp_path, runs.FINISHED)
    come_home(tmp_path, "done")
    assert going_on(tmp_path, RUN) == f"what run {RUN[:8]} gave lies in {tmp_path / 'runs' / RUN}"


@pytest.mark.parametrize("words", [("story", RUN), ("shards",), ("metrics", "ffff"), ("wait", RUN), ("watch",)])
def test_what_only_daemons_know_is_one_line_and_what_would_help(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Exit code 3, as wherever no daemon answers."""
    assert main([*words, "--dir", str(folder)]) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[-2].startswith("error: ")
    assert said[-1].startswith("hint: ")
    assert "`dflow up" in said[-1] or "`dflow resume" in said[-1]
