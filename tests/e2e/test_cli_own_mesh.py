"""`dflow run` with a mesh of its own, on real daemons and emulated engines: it comes with the run and goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dflow import answer, dflow
from tests.support.launch import told_until_it_ends
from tests.support.until import until

DEADLINE_S = 60.0
SPEC = """
name: toy
params: {rounds: 3}
steps: rounds
engine: emulated
models: {policy: {init: {config: llama.json, tokenizer: tokenizer}}}
data: {words: {jsonl: words.jsonl}}
stages:
  - {id: roll, op: generate, model: policy, config: {data: words, prompts: 8, partitions: 4, max_tokens: 4}}
  - {id: score, op: reward, config: {function: "score.py:same"}}
  - {id: adv, op: advantage}
  - {id: learn, op: train, model: policy, config: {optimizer: {adamw: {lr: 1e-3}}}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec for emulated engines, and the files that it names."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    (tmp_path / "llama.json").write_text("{}")
    (tmp_path / "words.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' * 8)
    (tmp_path / "score.py").write_text("def same(completion, answer, **_):\n    return float(completion == answer)\n")
    (tmp_path / "toy.yaml").write_text(SPEC)
    return tmp_path / "toy.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mesh"


def start(spec: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dflow_cli.app", "run", str(spec), "--dir", str(folder), "--json", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )


def hear_interrupts() -> None:
    """Shells start what runs in the background deaf to SIGINT, and children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object on stdout's last line, and stderr."""
    out, told = process.communicate(timeout=DEADLINE_S)
    assert out, told
    return process.returncode, json.loads(out.splitlines()[-1]), told


def daemons(folder: Path) -> list[int]:
    """Pids of every process that was started for the mesh in DIR, engines included: their files lie there."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in place.read_bytes() and int(place.parent.name) != os.getpid():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def first_step(folder: Path) -> bool:
    """Whether some daemon of the mesh has adopted the weights of the first step."""
    return any("step=1 " in log.read_text() for log in folder.glob("n*/log"))


def test_a_run_without_a_mesh_starts_one_and_leaves_only_its_results(spec: Path, folder: Path) -> None:
    """The newcomer types one line; afterwards no process is left, and the results are where the object says."""
    code, value, told = ended(start(spec, folder, "--nodes", "2"))
    assert code == 0, told
    assert (value["state"], value["step"], value["steps"], value["nodes"]) == ("done", 3, 3, 2)
    assert len(value["weights"]) == 64
    assert Path(value["plot"]).read_bytes().startswith(b"\x89PNG")
    (checkpoint,) = value["checkpoint"].values()
    assert Path(checkpoint, "dflow.json").is_file()
    assert Path(checkpoint).is_relative_to(folder / "runs")
    assert daemons(folder) == []
    assert list(folder.glob("n*/state")) == []
    figures = answer("report", value["run"], "--dir", folder, "-o", folder / "report.html")
    named = {load["name"] for load in figures["loads"] if load["tasks"]}
    assert named >= {"roll", "score", "adv", "learn", "learn.reduce", "learn.apply"}
    assert [bool(node["device"]) for node in figures["nodes"]] == [True, True]
    assert "takes" in (folder / "report.html").read_text()


def test_a_run_leaves_the_state_of_a_stopped_mesh_where_it_was(spec: Path, folder: Path) -> None:
    """What `dflow up` keeps in DIR is not the run's to delete."""
    dflow("up", "--nodes", "1", "--dir", folder)
    dflow("down", "--dir", folder)
    code, _, told = ended(start(spec, folder, "--nodes", "2"))
    assert code == 0, told
    assert [place.parent.name for place in sorted(folder.glob("n*/state"))] == ["n0", "n1"]


def test_a_run_that_ctrl_c_stopped_is_resumed_to_the_weights_of_one_that_was_not(spec: Path, folder: Path) -> None:
    """130 and where it stopped; nothing goes on in the background and all that was computed is kept. `dflow resume`
    starts the daemons again, goes on from there, and stops them."""
    longer = ("--set", "params.rounds=8", "--set", "emulated.generate_s=0.1")
    process = start(spec, folder, "--nodes", "2", *longer)
    until(lambda: first_step(folder), DEADLINE_S)
    process.send_signal(signal.SIGINT)
    code, value, told = ended(process)
    assert (code, value["state"]) == (130, "stopped"), told
    stopped_at = value["step"]
    assert f"stopped at step {stopped_at}; dflow resume {value['run'][:8]} --dir {folder} goes on" in told
    assert daemons(folder) == []
    newest = json.loads(dflow("metrics", value["run"], "--dir", folder, "--json").splitlines()[-1])
    assert newest["step"] == stopped_at
    assert Path(value["plot"]).is_file()
    resumed = answer("resume", value["run"][:8], "--dir", folder)
    assert (resumed["run"], resumed["state"], resumed["step"]) == (value["run"], "done", 8)
    assert daemons(folder) == []
    assert list(folder.glob("n*/state")) == []
    rows = [json.loads(line) for line in dflow("metrics", value["run"], "--dir", folder).splitlines()]
    assert [row["step"] for row in rows if row["step"]] == list(range(1, 9))
    assert all(row["compute_s"] > 0 for row in rows if row["step"])
    assert {task["step"] for task in answer("tasks", value["run"], "--dir", folder)["tasks"]} >= set(range(8))
    undisturbed = answer("run", spec, "--nodes", "1", *longer, "--dir", folder)
    assert resumed["weights"] == undisturbed["weights"]


def test_ctrl_c_twice_or_discard_leave_what_they_say_and_no_process(spec: Path, folder: Path) -> None:
    """Who presses it twice wants no more waiting; who discards wants the disk back, also by SIGTERM. The next run in
    the folder is not disturbed by what waits there."""
    forever = ("--nodes", "1", "--set", "params.rounds=100000")
    process = start(spec, folder, *forever)
    until(lambda: first_step(folder), DEADLINE_S)
    (daemon,) = [pid for pid in daemons(folder) if b"dflowd\0run" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(daemon, signal.SIGSTOP)  # there is something to wait for
    assert told_until_it_ends(process, signal.SIGINT) == 130
    _, told = process.communicate(timeout=DEADLINE_S)
    assert "ended at once; " in told
    assert daemons(folder) == []
    before = (folder / "n0/log").stat().st_size
    discarded = start(spec, folder, *forever, "--discard")
    until(lambda: "step.advanced" in (folder / "n0/log").read_text()[before:], DEADLINE_S)
    discarded.send_signal(signal.SIGTERM)
    code, value, told = ended(discarded)
    assert (code, value["state"]) == (130, "cancelled")
    assert f"run {value['run'][:8]} is discarded: nothing of it is kept" in told
    assert list(folder.glob(f"**/{value['run']}")) == []
    assert daemons(folder) == []


@pytest.mark.parametrize("rounds", [(2, 12), (12, 2)])
def test_a_second_run_in_a_folder_loses_nothing_when_one_of_them_ends(
    spec: Path, folder: Path, rounds: tuple[int, int]
) -> None:
    """Both begin at once; the daemons stay until both have their results at home, whichever started them."""
    both = [
        start(spec, folder, "--nodes", "2", "--set", "emulated.generate_s=0.1", "--set", f"params.rounds={count}")
        for count in rounds
    ]
    answers = [ended(process) for process in both]
    for (code, value, told), steps in zip(answers, rounds, strict=True):
        assert (code, value["state"], value["step"]) == (0, "done", steps), told
        assert all(
            Path(place).is_relative_to(folder / "runs") for place in [value["plot"], *value["checkpoint"].values()]
        )
    assert sum("another `dflow run` started the daemons" in told for _, _, told in answers) == 1
    assert daemons(folder) == []
    assert list(folder.glob("n*/state")) == []


def test_a_mesh_of_one_run_does_not_outlive_a_killed_command(spec: Path, folder: Path) -> None:
    """Whoever kills the command with SIGKILL must not find daemons days later."""
    process = start(spec, folder, "--nodes", "1", "--set", "params.rounds=100000")
    until(lambda: first_step(folder), DEADLINE_S)
    process.kill()
    process.communicate()
    until(lambda: daemons(folder) == [], DEADLINE_S)


def test_ctrl_c_detaches_from_a_mesh_that_was_up_before(spec: Path, folder: Path) -> None:
    """The run is the mesh's: it goes on, and can be cancelled by whoever wants to."""
    dflow = [sys.executable, "-m", "dflow_cli.app"]
    subprocess.run([*dflow, "up", "--nodes", "1", "--dir", str(folder)], check=True, stdout=subprocess.DEVNULL)
    try:
        process = start(spec, folder, "--set", "params.rounds=100000")
        until(lambda: first_step(folder), DEADLINE_S)
        process.send_signal(signal.SIGINT)
        code, value, told = ended(process)
        assert code == 130, told
        assert value["state"] == "active"
        figures = answer("report", value["run"], "--dir", folder)
        assert (figures["is_active"], figures["findings"][0]["share"] > 0) == (True, True)
        cancelled = subprocess.run(
            [*dflow, "cancel", value["run"][:8], "--dir", str(folder), "--json"], capture_output=True, text=True
        )
        assert json.loads(cancelled.stdout) == {"run": value["run"], "state": "cancelled"}
    finally:
        subprocess.run([*dflow, "down", "--dir", str(folder)], check=True)


def test_a_run_leaves_a_mesh_alone_that_came_after_its_own(spec: Path, folder: Path) -> None:
    """`dflow down` beside it, then `dflow up`: those daemons are not the run's to stop."""
    process = start(spec, folder, "--nodes", "1", "--set", "params.rounds=100000")
    until(lambda: first_step(folder), DEADLINE_S)
    dflow("down", "--dir", folder)
    dflow("up", "--nodes", "1", "--dir", folder)
    try:
        process.communicate(timeout=DEADLINE_S)
        assert "n0" in dflow("nodes", "--dir", folder)
    finally:
        dflow("down", "--dir", folder)
