"""What a siiRL run is told beside its pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.errors import CliError
from dflow_cli.importing.siirl.settings import Settings, read_settings
from dflow_cli.importing.siirl.workflow import Node

# Of the shape of siiRL's own: exported names, sums of them, an array of words that is put together at its end.
SCRIPT = """#!/usr/bin/env bash
export DATA=$BASE/data   # where rows lie
export PROMPTS_PER_NODE=512
export NNODES=${NODES:-2}
TRAINING_CMD=(
    python3 -m siirl.main_dag
    algorithm.adv_estimator=\\$ALG
    data.train_files=\\$DATA/train.parquet
    data.train_batch_size=\\$PROMPTS
    actor_rollout_ref.actor.optim.lr=1e-6 \\
    actor_rollout_ref.rollout.name='vllm'
    actor_rollout_ref.rollout.max_model_len=$((PROMPTS_PER_NODE + 2 * 8))
    trainer.logger=["console","tensorboard"]
    trainer.default_local_dir=\\$NOBODY/out
)
export ALG=grpo
export PROMPTS=$(($PROMPTS_PER_NODE * $NNODES))
"""


def test_a_script_is_read_and_not_run(tmp_path: Path) -> None:
    """Its variables and sums are put in; what nobody assigned stays as it is written."""
    script = tmp_path / "run.sh"
    script.write_text(SCRIPT)
    assert read_settings([str(script)]).told == {
        "algorithm.adv_estimator": "grpo",
        "data.train_files": "$BASE/data/train.parquet",
        "data.train_batch_size": 1024,
        "actor_rollout_ref.actor.optim.lr": "1e-6",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.max_model_len": 528,
        "trainer.logger": ["console", "tensorboard"],
        "trainer.default_local_dir": "$NOBODY/out",
    }


def test_later_settings_win_over_earlier_ones(tmp_path: Path) -> None:
    """A file, then what was typed; keys of a file nested or dotted."""
    file = tmp_path / "settings.yaml"
    file.write_text("data: {train_batch_size: 8, max_prompt_length: 64}\ntrainer.seed: 3\n")
    told = read_settings([str(file), "data.train_batch_size=16"]).told
    assert told == {"data.train_batch_size": 16, "data.max_prompt_length": 64, "trainer.seed": 3}


def test_a_nodes_own_settings_come_before_the_runs() -> None:
    """And who asked for which is known of the whole."""
    settings = Settings({"actor_rollout_ref.rollout.n": 8, "data.shuffle": False})
    own = settings.of(Node("roll", config={"rollout.n": 2}), "actor_rollout_ref")
    assert own.get("actor_rollout_ref.rollout.n") == 2
    assert settings.get("actor_rollout_ref.rollout.n") == 8
    assert settings.unasked() == ["data.shuffle"]


def test_a_setting_that_has_to_be_a_number_and_is_none_is_told(tmp_path: Path) -> None:
    """Such as a variable that the script's own shell would have had."""
    settings = Settings({"data.train_batch_size": "$PROMPTS", "actor.lr": "1e-6"})
    assert settings.number("actor.lr", 1.0) == 1e-6
    with pytest.raises(CliError, match="which is no number") as caught:
        settings.number("data.train_batch_size", 1)
    assert "--config data.train_batch_size=" in caught.value.hint


@pytest.mark.parametrize("text", ["nothing.yaml", "no settings"])
def test_what_holds_no_settings_is_one_error(tmp_path: Path, text: str) -> None:
    """A slip in a file's name, or another file."""
    with pytest.raises(CliError) as caught:
        read_settings([text])
    assert "KEY=VALUE" in caught.value.hint
