"""`dflow run` and `submit` against a stand-in daemon, and what a run leaves behind when its mesh has gone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.app import main
from dflow_cli.mesh.client import Client
from dflow_cli.mesh.keyfiles import key_pair
from dflow_cli.own_run.results import keep
from dflow_cli.runs.outcome import read_outcome
from dflow_protocols.pipeline import Pipeline
from tests.unit.cli.fakedaemon import RUN, FakeDaemon, told_rows, told_run

SPEC = """
name: toy
params: {rounds: 6}
steps: rounds
engine: emulated
models: {policy: {init: {config: llama.json, tokenizer: tokenizer}}}
data: {words: {jsonl: words.jsonl}}
stages:
  - {id: roll, op: generate, model: policy, config: {data: words, prompts: 4, partitions: 2, max_tokens: 4}}
  - {id: score, op: reward, config: {function: "score.py:same"}}
  - {id: adv, op: advantage}
  - {id: learn, op: train, model: policy, config: {optimizer: {adamw: {lr: 1e-3}}}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec and the files that it names."""
    folder = tmp_path / "spec"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    (folder / "llama.json").write_text("{}")
    (folder / "words.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' * 8)
    (folder / "score.py").write_text("def same(completion, answer, **_):\n    return float(completion == answer)\n")
    (folder / "toy.yaml").write_text(SPEC)
    return folder / "toy.yaml"


@pytest.fixture
def run_daemon(daemon: FakeDaemon) -> FakeDaemon:
    daemon.answers["submit"] = lambda _: {"run": RUN}
    return daemon


def test_submit_hands_over_the_canonical_spec_and_where_its_paths_start(
    mesh: Path, run_daemon: FakeDaemon, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Daemons read the same bytes that the run's id is made of."""
    assert main(["submit", str(spec), "--set", "params.rounds=3", "--dir", str(mesh), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": RUN}
    method, params = run_daemon.asked[-1]
    assert method == "submit"
    assert Pipeline.from_canonical(params["spec"]).schedule.steps == 3
    assert params["base"] == str(spec.parent)
    assert params["nonce"]


def test_who_submits_a_pipeline_that_is_active_already_is_told_so(
    mesh: Path, run_daemon: FakeDaemon, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that is typed twice costs a mesh its time twice, and brings the same weights. Another pipeline of that
    name, and a run that has ended, are none of its business."""
    same, other, ended = "5a" * 16, "07" * 16, "ed" * 16
    active = [told_run(run=name, name="toy", state="active") for name in (RUN, same, other)]
    run_daemon.answers["runs"] = lambda _: {"runs": [*active, told_run(run=ended, name="toy", state="done")]}
    handed: list[bytes] = []

    def submit(params: dict[str, Any]) -> dict[str, Any]:
        handed.append(params["spec"])
        return {"run": RUN}

    run_daemon.answers["submit"] = submit
    run_daemon.answers["run"] = lambda asked: {"spec": b"another" if asked["run"] == other else handed[-1]}
    assert main(["submit", str(spec), "--dir", str(mesh)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "same pipeline" in line]
    assert [line.split()[:2] for line in told] == [["run", same[:8]]]
    assert f"dflow cancel {RUN[:8]}" in told[0]


def test_run_ends_with_one_object_and_the_exit_code_of_the_run(
    mesh: Path, run_daemon: FakeDaemon, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout is for scripts, progress goes to stderr."""
    assert main(["run", str(spec), "--dir", str(mesh), "--to", str(run_daemon.endpoint), "--json"]) == 0
    told = capsys.readouterr()
    (text,) = told.out.splitlines()
    value = json.loads(text)
    assert {"run", "state", "steps", "nodes", "weights", "evals", "wall_s"} <= value.keys()
    assert value["state"] == "done"
    assert "step 6/6" in told.err


def test_a_failed_run_is_exit_code_1(mesh: Path, run_daemon: FakeDaemon, spec: Path) -> None:
    """With or without --json."""
    run_daemon.answers["wait"] = lambda _: told_run(state="failed", error="score.py: it raised")
    assert main(["run", str(spec), "--dir", str(mesh), "--to", str(run_daemon.endpoint)]) == 1


def test_ctrl_c_leaves_a_run_of_somebody_elses_mesh_alone(
    mesh: Path, run_daemon: FakeDaemon, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mesh is not this command's own: it detaches with 130 and cancels nothing."""

    def interrupt(_: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return told_run(state="active", step=2)

    run_daemon.answers["wait"] = interrupt
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background is deaf to it
    try:
        assert main(["run", str(spec), "--dir", str(mesh), "--to", str(run_daemon.endpoint)]) == 130
    finally:
        signal.signal(signal.SIGINT, heard)
    assert "cancel" not in [method for method, _ in run_daemon.asked]
    assert f"dflow watch {RUN[:8]}" in capsys.readouterr().err


def test_a_wrong_spec_starts_nothing(
    mesh: Path, run_daemon: FakeDaemon, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File and line, the nearest name as the remedy, and no request to the mesh."""
    spec.write_text(SPEC.replace("op: advantage", "op: advantages"))
    assert main(["run", str(spec), "--dir", str(mesh), "--to", str(run_daemon.endpoint)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"error: {spec}:11: ")
    assert told[1].startswith("hint: did you mean `advantage`?")
    assert run_daemon.asked == []


def test_what_a_run_leaves_answers_after_its_mesh_has_gone(
    mesh: Path, daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newcomer's daemons end with the run; its figures, samples and checkpoint stay."""
    saved = tmp_path / "n0" / "state" / "checkpoint"
    saved.mkdir(parents=True)
    (saved / "model.safetensors").write_bytes(b"weights")
    outcome = read_outcome(told_run(checkpoint={"n0": str(saved)}))
    with Client([daemon.endpoint], key_pair(mesh / "client.key")) as client:
        kept = keep(client, mesh, outcome)
    daemon.die()
    (saved / "model.safetensors").unlink()
    assert (Path(kept.checkpoint["n0"]) / "model.safetensors").read_bytes() == b"weights"
    assert main(["metrics", RUN[:8], "--since", "5", "--dir", str(mesh)]) == 0
    assert [json.loads(row)["step"] for row in capsys.readouterr().out.splitlines()] == [5, 6]
    assert main(["samples", RUN[:8], "--dir", str(mesh), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["completion"] == "tac"
    assert main(["plot", RUN[:8], "--dir", str(mesh), "-o", str(tmp_path / "a.png")]) == 0
    assert main(["metrics", "ffff", "--dir", str(mesh)]) == 3


def test_figures_that_are_no_number_are_null_in_json(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A diverged loss must not break the reader's JSON."""
    rows = told_rows(1)
    rows[0]["loss"] = float("nan")
    daemon.answers["metrics"] = lambda _: {"rows": rows, "missing": []}
    assert main(["metrics", RUN, "--dir", str(mesh)]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] is None
