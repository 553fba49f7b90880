"""`dflow import siirl`: a spec on stdout or in a file, and what has no twin beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dflow_cli.app import main
from dflow_protocols.pipeline import Pipeline

BUILDER = """
from siirl.execution.dag import Pipeline

def short_pipeline():
    pipeline = Pipeline("short")
    pipeline.add_node("roll", func="siirl.dag_worker.dagworker:DAGWorker.generate")
    pipeline.add_node("judge", func="siirl.dag_worker.dagworker:DAGWorker.compute_reward", deps=["roll"])
    pipeline.add_node("adv", func="siirl.dag_worker.dagworker:DAGWorker.compute_advantage", deps=["judge"])
    pipeline.add_node("learn", func="siirl.dag_worker.dagworker:DAGWorker.train_actor", deps=["adv"])
    return pipeline.build()
"""
WORKFLOW = """
dag_id: flow
nodes:
  - {node_id: roll, node_type: MODEL_INFERENCE, node_role: ROLLOUT}
  - {node_id: judge, node_type: COMPUTE, node_role: REWARD, dependencies: [roll]}
  - {node_id: adv, node_type: COMPUTE, node_role: ADVANTAGE, dependencies: [judge]}
  - {node_id: learn, node_type: MODEL_TRAIN, node_role: ACTOR, dependencies: [adv]}
"""
SMALL = ["--config", "data.train_batch_size=8"]  # one update a step


def test_the_spec_is_on_stdout_and_all_else_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So it may be piped; a warning is no failure."""
    file = tmp_path / "mine.py"
    file.write_text(BUILDER)
    assert main(["import", "siirl", f"{file}:short_pipeline", *SMALL, "--config", "data.shuffle=False"]) == 0
    told = capsys.readouterr()
    assert Pipeline.from_dict(yaml.safe_load(told.out)).name == "short"
    assert "data.shuffle=False" in told.err
    assert "no twin" in told.err


def test_a_folder_gives_a_file_for_each_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that have nothing of siiRL are passed over, and one that cannot be read is told."""
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    (source / "mine.py").write_text(BUILDER)
    (source / "deep" / "flow.yaml").write_text(WORKFLOW)
    (source / "deep" / "flow_too.yaml").write_text(WORKFLOW)
    (source / "deep" / "other.yaml").write_text("a: 1\n")
    (source / "other.py").write_text("raise SystemExit('this is not run')\n")
    (source / "broken.py").write_text("from siirl import Pipeline\n1 / 0\n")
    assert main(["import", "siirl", str(source), *SMALL, "-o", str(out), "--json"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["pipelines"]
    assert [row["path"] for row in rows] == [str(out / f"{name}.yaml") for name in ("flow", "flow.2", "short")]
    assert all(Pipeline.from_dict(yaml.safe_load(Path(row["path"]).read_text())) for row in rows)
    assert "broken.py:2: ZeroDivisionError" in told.err


def test_a_script_is_a_pipeline_with_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which of siiRL's own it is follows from the algorithm."""
    script = tmp_path / "run.sh"
    script.write_text("python3 -m siirl.main_dag \\\n  algorithm.adv_estimator=grpo \\\n  data.train_batch_size=8\n")
    assert main(["import", "siirl", str(script), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["pipelines"]
    assert row["name"] == "grpo_training_pipeline"
    assert row["spec"]["stages"][0]["config"]["prompts"] == 8


def test_nothing_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a person wrote into the spec since then stays."""
    place = tmp_path / "grpo.yaml"
    place.write_text("mine\n")
    assert main(["import", "siirl", "grpo", "-o", str(place)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {place}: is there already\nhint: ")
    assert place.read_text() == "mine\n"


@pytest.mark.parametrize("named", ["nothing_there", "spec.yaml", "notes.txt", "."])
def test_what_is_nothing_of_siirl_is_one_error(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines: what it is not, and what it has to be."""
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text("name: x\nstages: []\n")
    Path("notes.txt").write_text("nothing\n")
    assert main(["import", "siirl", named]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert what.startswith(f"error: {named}")
    assert hint.startswith("hint: ")
