"""PPO by the commands of a user: a critic that is trained beside its policy, on any number of daemons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.dflow import dflow, example_folder, run_on_one_and_two


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small example with a critic, which learns at every other step, and the policy at those between."""
    example = example_folder(tmp_path_factory.mktemp("specs"))
    raw: dict[str, Any] = yaml.safe_load(example.read_text())
    raw["models"]["critic"] = {**raw["models"]["policy"], "head": "value"}
    stages = {stage["id"]: stage for stage in raw["stages"]}
    stages["adv"]["config"] = {"method": "gae", "whiten": True}
    stages["learn"]["config"]["loss"] = {"kind": "ppo"}
    stages["learn"]["when"] = "step >= warmup and (step - warmup) % 2 == 1"
    fit = {**stages["learn"]["config"], "loss": {"kind": "value", "value_clip": 0.2}}
    when = "step >= warmup and (step - warmup) % 2 == 0"
    raw["stages"].insert(raw["stages"].index(stages["adv"]), {"id": "value", "op": "value", "model": "critic"})
    raw["stages"].append({"id": "fit", "op": "train", "model": "critic", "when": when, "config": fit})
    path = example.with_name("ppo.yaml")
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.slow
def test_a_critic_and_its_policy_do_not_depend_on_how_many_nodes_train_them(spec: Path, tmp_path: Path) -> None:
    """Values, advantages of tokens and both updates are functions of the spec; both models leave the mesh whole."""
    whole = run_on_one_and_two(spec, spec.with_name("early.yaml"))
    lines = dflow("metrics", whole[1]["run"], "--dir", spec.parent / "m2").splitlines()
    rows = [json.loads(line) for line in lines]
    losses = [row["value_loss"] for row in rows if "value_loss" in row]
    assert len(losses) == 2
    assert all(loss > 0 for loss in losses)
    assert all("explained_variance" in row for row in rows if "value_loss" in row)
    dflow("export", whole[1]["run"], tmp_path / "out", "--dir", spec.parent / "m2")
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    critic: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out/critic")
    assert critic.score.weight.abs().max() > 0  # it began at zero
