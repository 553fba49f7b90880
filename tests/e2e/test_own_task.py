"""A task of one's own, from `dflow init` to a model that transformers opens, with real engines."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.support.dflow import answer, dflow, settings


def test_what_init_writes_runs_as_it_is_and_its_model_can_be_taken_along(tmp_path: Path) -> None:
    """Three commands: write it, run it, export it; the mesh is gone by then."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task, mesh = tmp_path / "task", tmp_path / "mesh"
    dflow("init", task)
    short = ("--set", "params.warmup=2", "--set", "params.grpo=2", "--nodes", "1", "--dir", mesh)
    told = answer("run", task / "pipeline.yaml", *short)
    assert told["state"] == "done"
    brought = answer("export", told["run"], tmp_path / "model", "--dir", mesh)
    assert (brought["step"], brought["version"]) == (4, told["version"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model(**tokenizer("acorn\n", return_tensors="pt")).logits.shape[-1] == len(tokenizer)
    rows = list(csv.DictReader(io.StringIO(dflow("metrics", told["run"], "--format", "csv", "--dir", mesh))))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3]["reward_mean"]


HOSTILE = """
import os, time
def closeness(completion, answer):
    kind = sum(map(ord, completion)) % 5
    if kind == 0:
        time.sleep(1000)
    if kind == 1:
        os._exit(3)
    if kind == 2:
        return None
    return float(kind == 3)
"""


def test_a_reward_that_hangs_and_dies_costs_its_answers_and_the_run_says_so(tmp_path: Path) -> None:
    """Weights that a clock had a part in must not pass for such that anybody can make again."""
    task, mesh = tmp_path / "task", tmp_path / "mesh"
    dflow("init", task)
    (task / "rewards.py").write_text(HOSTILE)
    small = {"params.warmup": 1, "params.grpo": 1, "stages.roll.config.prompts": 4, "stages.roll.config.group": 4}
    lenient = {"stages.score.config.on_error": "leave_out", "stages.score.config.timeout_s": 0.5}
    told = answer("run", task / "pipeline.yaml", *settings(small | lenient), "--nodes", "2", "--dir", mesh)
    assert (told["state"], told["reproducibility"], told["since_step"]) == ("done", "replay", 1)
    table = dflow("metrics", told["run"], "--format", "csv", "--dir", mesh)
    (row,) = (row for row in csv.DictReader(io.StringIO(table)) if row["step"] == "2")
    assert float(row["unscored"]) >= float(row["reward_errors"]) >= float(row["reward_timeouts"]) > 0


@pytest.mark.slow
def test_a_reward_that_breaks_ends_the_run_with_its_line(tmp_path: Path) -> None:
    """Not with the engine's, and not never."""
    task = tmp_path / "task"
    dflow("init", task)
    (task / "rewards.py").write_text(
        "import json\n\n\ndef closeness(completion):\n    return json.loads(completion)[0]\n"
    )
    short = ("--set", "params.warmup=1", "--set", "params.grpo=1", "--nodes", "1", "--dir", tmp_path / "mesh")
    said = dflow("run", task / "pipeline.yaml", *short, code=1)
    assert said
    runs = list((tmp_path / "mesh" / "runs").iterdir())
    assert len(runs) == 1
    outcome = (runs[0] / "outcome.json").read_text()
    assert "stage `score`: JSONDecodeError" in outcome
    assert "(rewards.py:5)" in outcome


@pytest.mark.slow
def test_its_reward_rises(tmp_path: Path) -> None:
    """In about a minute; by how much is the machine's numerics' to say, that it does is the promise."""
    dflow("init", tmp_path / "task")
    told = answer("run", tmp_path / "task" / "pipeline.yaml", "--nodes", "2", "--dir", tmp_path / "mesh")
    table = dflow("metrics", told["run"], "--format", "csv", "--dir", tmp_path / "mesh")
    rewards = [float(row["reward_mean"]) for row in csv.DictReader(io.StringIO(table)) if row["reward_mean"]]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:5]) / 5 + 0.2
