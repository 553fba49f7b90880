"""Commands against a stand-in daemon: what scripts rely on (fields, exit codes, two-line errors) word for word."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.app import main
from dflow_cli.runs.outcome import goes_on
from tests.unit.cli.fakedaemon import RUN, FakeDaemon, Refusal, told_run

HEAVY = ("zmq", "msgpack", "rich", "yaml", "torch", "numpy", "matplotlib", "pydantic", "dflow_protocols", "dflowd")


def dflow(mesh: Path, *arguments: str) -> int:
    return main([*arguments, "--dir", str(mesh)])


def last_object(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last line of stdout, which is one object."""
    value: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return value


def test_help_loads_nothing_heavy() -> None:
    """`dflow --help` answers at once because commands import what they need when they run."""
    code = f"import sys; from dflow_cli.app import main; main(['--help']); print({{*{HEAVY}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_wait_gives_the_outcome_that_scripts_read(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run, state, steps, nodes, weights, evals in step order, wall_s; the spec stays with the daemon."""
    assert dflow(mesh, "wait", RUN, "--json") == 0
    value = last_object(capsys)
    assert value["run"] == RUN
    assert (value["state"], value["steps"], value["nodes"], value["wall_s"]) == ("done", 6, 3, 12.5)
    assert value["weights"] == "ab" * 32
    assert [(row["step"], row["accuracy"]) for row in value["evals"]] == [(2, 0.4), (6, 0.95)]
    assert "spec" not in value


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_wait_exits_with_1_for_a_run_that_did_not_succeed(mesh: Path, daemon: FakeDaemon, state: str) -> None:
    """Failed and cancelled are one thing to a script that needs the weights."""
    daemon.answers["wait"] = lambda _: told_run(state=state, error="stage `score` raised")
    assert dflow(mesh, "wait", RUN, "--json") == 1


def test_wait_exits_with_4_when_its_time_is_over(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on, and the message says so."""

    def active(params: dict[str, Any]) -> dict[str, Any]:
        time.sleep(min(params["timeout_s"], 0.05))
        return told_run(state="active", step=3)

    daemon.answers["wait"] = active
    assert dflow(mesh, "wait", RUN, "--timeout", "0.2") == 4
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: run 3f9c12ab")
    assert "at step 3 of 6" in told[0]
    assert told[1].startswith("hint: ")


def test_nodes_tasks_and_ps_print_the_contracts_fields(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The names of the contract for scripts."""
    assert dflow(mesh, "nodes", "--json") == 0
    assert {"id", "name", "state"} <= last_object(capsys)["nodes"][0].keys()
    assert dflow(mesh, "tasks", RUN, "--json") == 0
    assert {"id", "stage", "step", "node", "stolen", "started", "ended"} <= last_object(capsys)["tasks"][0].keys()
    assert dflow(mesh, "ps", "--json") == 0
    run = last_object(capsys)["runs"][0]
    assert {name: run[name] for name in ("run", "name", "state", "step", "steps")} == {
        "run": RUN,
        "name": "toy",
        "state": "done",
        "step": 6,
        "steps": 6,
    }


def test_tasks_tells_versions_where_rollouts_are_ahead(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere each is of the version that its step begins with, which the step says."""
    row = daemon.answers["tasks"]({})["tasks"][0]
    told: dict[str, Any] = {"missing": []}
    daemon.answers["tasks"] = lambda params: told
    for source, is_shown in ((row["step"], False), (row["step"] - 1, True)):
        told["tasks"] = [row | {"samples_from": source}]
        assert dflow(mesh, "tasks", RUN) == 0
        assert ("samples_from" in capsys.readouterr().out) is is_shown


def test_nodes_tells_of_gpus_only_where_there_are_some(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a node; of one whose driver does not answer, how old it is."""
    assert dflow(mesh, "nodes") == 0
    assert "GPU" not in capsys.readouterr().out
    well = {"fell_off": False, "memory_used": 41e9, "memory_total": 80e9, "busy": 97, "celsius": 66, "ecc_errors": 0}
    gone = {**dict.fromkeys(well), "fell_off": True}
    (node,) = daemon.answers["nodes"]({})["nodes"][:1]
    gpus = [{**well, "age_s": 3.0}, {**gone, "age_s": 75.0}]
    drained = [{"slot": 1, "why": "GPU 1 fell off the bus"}]
    daemon.answers["nodes"] = lambda _: {"nodes": [{**node, "gpus": gpus, "drained": drained}], "missing": []}
    assert dflow(mesh, "nodes") == 0
    printed = capsys.readouterr()
    line = printed.out.splitlines()[-1]
    assert printed.err.startswith("hint: ")
    told = "GPU 0 41 GB of 80 GB used, 97 % busy, 66 °C; GPU 1 fell off the bus (1 min 15 s ago)"
    assert line == f"{node['name']}: {told}; slot 1 takes no work: GPU 1 fell off the bus"


def test_metrics_are_one_object_a_step_and_tell_the_meshs_own_time(
    mesh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout stays JSONL; what a step costs beside compute is a note."""
    assert dflow(mesh, "metrics", RUN) == 0
    told = capsys.readouterr()
    assert [json.loads(row)["step"] for row in told.out.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert "mesh time of a step: median 40 ms" in told.err


def test_who_did_not_answer_is_named(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gathered answer that lacks a node's part must not pass for the whole."""
    assert dflow(mesh, "samples", RUN) == 0
    told = capsys.readouterr()
    assert "spell [cat]" in told.out
    assert "no answer from: n2" in told.err


def test_samples_show_the_right_answer_on_one_line_of_any_step(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reward of 0 asks what would have been right; a line break in an answer must not break the table."""
    said = {"step": 3, "prompt": "7 + 8?", "completion": "so\n\x1b[1m14", "answer": "15", "reward": 0.0}
    older = {"step": 3, "prompt": "1 + 1?", "completion": "2", "reward": 1.0}  # of a daemon that tells no answer
    daemon.answers["samples"] = lambda params: {"samples": [said, older] if params.get("step") == 3 else []}
    assert dflow(mesh, "samples", RUN, "--step", "3") == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.split() == ["3", "7", "+", "8?", r"so\n\x1b[1m14", "15", "0.000"]
    assert second.split() == ["3", "1", "+", "1?", "2", "-", "1.000"]
    assert dflow(mesh, "samples", RUN, "--step", "4") == 0
    assert "no sample is kept of step 4" in capsys.readouterr().err


def test_plot_writes_a_png(mesh: Path, tmp_path: Path) -> None:
    """Whatever rows lack, a picture comes out."""
    path = tmp_path / "out.png"
    assert dflow(mesh, "plot", RUN, "-o", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_named(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its path and the system's words for it, once."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.png"
    assert dflow(mesh, "plot", RUN, "-o", str(path)) == 2
    assert capsys.readouterr().err == f"error: {path}: Not a directory\nhint: name a place that can be written\n"


def test_cancel_says_how_the_run_stands(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cancelled run is the wish of who cancels it: exit code 0."""
    assert dflow(mesh, "cancel", RUN, "--json") == 0
    assert last_object(capsys) == {"run": RUN, "state": "cancelled"}


def test_resume_says_how_the_run_stands(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script goes on by it."""
    assert dflow(mesh, "resume", RUN, "--json") == 0
    assert last_object(capsys) == {"run": RUN, "state": "active"}


def test_a_daemons_refusal_is_two_lines_and_its_exit_code(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, whatever the daemon says."""

    def refuse(_: object) -> dict[str, Any]:
        raise Refusal("`3f` begins the ids of two runs", "give more digits", 2)

    daemon.answers["cancel"] = refuse
    assert dflow(mesh, "cancel", "3f") == 2
    assert capsys.readouterr().err == "error: `3f` begins the ids of two runs\nhint: give more digits\n"


def test_no_daemon_is_exit_code_3(mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no mesh was ever started."""
    daemon.die()
    assert dflow(mesh, "nodes") == 3
    assert dflow(mesh / "nothing", "nodes") == 3
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == ["error", "hint", "error", "hint"]


@pytest.mark.parametrize(
    "arguments",
    [["wait"], ["no-such-command"], ["up", "--nodes", "many"], ["run", "--frobnicate"], ["nodes", "--to", "x"]],
)
def test_wrong_input_is_two_lines_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The contract: one line what and where, one line hint."""
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("error: ")
    assert told[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"state": "failed", "error": "1/roll/p0 failed: no luck"}, "1/roll/p0 failed: no luck"),
        ({"state": "active", "blocked": "needs `gpu` (stage roll)"}, "blocked: needs `gpu` (stage roll)"),
        ({"state": "active", "starved": True}, "waits for room: `dflow doctor` says where"),
        ({"state": "active", "paused": True}, "paused: waits for the other part of the mesh"),
        ({"state": "active", "problems": [{"what": "stands still", "nodes": ["n0", "n2"]}]}, "stands still (n0, n2)"),
    ],
)
def test_ps_says_why_a_run_failed_or_what_it_waits_for(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], changes: dict[str, object], remark: str
) -> None:
    """A run that stands still looks like a slow one otherwise."""
    row = {**told_run(**changes), "submitted_s": 1.0}
    del row["spec"]
    daemon.answers["runs"] = lambda _: {"runs": [row]}
    assert dflow(mesh, "ps") == 0
    assert remark in capsys.readouterr().out
    daemon.answers["wait"] = lambda _: told_run(**changes)
    code = dflow(mesh, "wait", RUN, "--timeout", "0.1")
    said = capsys.readouterr()
    assert remark in (said.out if code == 1 else said.err)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"held": 7, "saved": 5, "reached": 7}, "goes on at step 7"),
        ({"held": None, "saved": 5, "reached": 5}, "goes on at step 5"),
        (
            {"held": None, "saved": 5, "reached": 7},
            "goes on at step 5, from its checkpoint: 2 steps are lost",
        ),
        (
            {"held": None, "saved": None, "reached": 12},
            "begins again at step 0: no checkpoint of it is left, and 12 steps are lost",
        ),
        (
            {"held": 0, "saved": None, "reached": 1},
            "begins again at step 0: no checkpoint of it is left, and 1 step",
        ),
        ({}, "goes on at step 0"),
    ],
)
def test_what_goes_on_after_a_restart_says_from_where_and_what_is_lost(known: dict[str, int | None], told: str) -> None:
    """`goes on` of a run that begins again is the opposite of what happens."""
    assert goes_on(known).startswith(told)
