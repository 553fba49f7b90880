"""siiRL's pipelines as specs: what becomes of each node and setting, and what is told of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dflow_cli.importing.draft import FILLED_IN, LEFT_OUT, NO_TWIN, REFUSED, TO_DO, Draft
from dflow_cli.importing.siirl.builtin import BUILTIN
from dflow_cli.importing.siirl.settings import Settings
from dflow_cli.importing.siirl.workflow import Node, make_workflow
from dflow_cli.importing.translate import translate
from dflow_protocols.pipeline import Pipeline

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
TOLD = {
    "actor_rollout_ref.model.path": "qwen",
    "data.train_files": "train.parquet",
    "data.train_batch_size": 64,
    "data.max_response_length": 256,
    f"{ACTOR}.ppo_mini_batch_size": 64,
    f"{ROLLOUT}.n": 4,
    "trainer.total_training_steps": 20,
}


def draft(name: str, **told: Any) -> Draft:
    """Of one of siiRL's own pipelines; a setting's dots as `__`."""
    graph, nodes = BUILTIN[f"{name}_pipeline"]
    given = {key.replace("__", "."): value for key, value in told.items()}
    return translate(make_workflow(graph, [Node.of(node) for node in nodes], name), Settings(TOLD | given))


def stages(made: Draft) -> dict[str, dict[str, Any]]:
    return {stage["id"]: stage for stage in made.spec["stages"]}


def notes(made: Draft, kind: str) -> dict[str, str]:
    return {note.where: note.what for note in made.notes if note.kind == kind}


@pytest.mark.parametrize("name", ["grpo", "dapo", "embodied_srpo"])
def test_siirls_pipelines_of_one_training_are_valid_here(name: str) -> None:
    """With nothing said beside, and nothing changed by hand; the text is the spec."""
    made = draft(name)
    assert notes(made, REFUSED) == {}
    assert Pipeline.from_dict(made.spec) == Pipeline.from_dict(yaml.safe_load(made.text()))


def test_grpo_keeps_its_graph() -> None:
    """A reference scores once its param says so, and the sampler's own log-probabilities need no stage."""
    made = draft("grpo")
    assert [(stage["id"], stage["op"]) for stage in made.spec["stages"]] == [
        ("rollout_actor", "generate"),
        ("function_reward", "reward"),
        ("calculate_advantages", "advantage"),
        ("reference_log_prob", "logprob"),
        ("actor_train", "train"),
    ]
    assert stages(made)["rollout_actor"]["config"] == {"data": "train", "prompts": 64, "group": 4, "max_tokens": 256}
    assert stages(made)["calculate_advantages"]["config"] == {"method": "grpo", "scale": "std", "ddof": 1}
    assert stages(made)["reference_log_prob"]["when"] == "kl > 0"
    assert set(notes(made, LEFT_OUT)) == {"actor_old_log_prob"}
    assert notes(made, NO_TWIN) == {}
    Pipeline.from_dict(made.spec | {"params": {"kl": 0.01}})


def test_ppo_is_a_critic_its_values_and_two_trainings() -> None:
    """The policy is trained before the critic, as there."""
    made = draft("ppo", algorithm__lam=0.95, critic__model__path="small", critic__cliprange_value=0.2)
    assert made.spec["models"]["critic"] == {"path": "small", "head": "value"}
    found = stages(made)
    assert found["compute_value"] == {"id": "compute_value", "op": "value", "model": "critic"}
    assert found["calculate_advantages"]["config"] == {"method": "gae", "lam": 0.95, "whiten": True}
    assert found["critic_train"]["config"]["loss"] == {"kind": "value", "value_clip": 0.2}
    assert list(found)[-2:] == ["actor_train", "critic_train"]


def test_dapo_drops_groups_and_docks_length() -> None:
    """That dropped groups are not sampled again is told."""
    told = {"reward_model__overlong_buffer__enable": True, "reward_model__overlong_buffer__len": 32}
    made = draft("dapo", **told, **{f"{ACTOR}.clip_ratio_high": 0.28, f"{ACTOR}.clip_ratio_c": 10.0})
    found = stages(made)
    assert found["overlong"]["config"]["args"] == {"most": 256, "buffer": 32}
    assert found["calculate_advantages"]["config"]["rewards"] == {"function_reward": 1.0, "overlong": 1.0}
    assert found["calculate_advantages"]["config"]["drop_flat_groups"] is True
    assert found["actor_train"]["config"]["loss"]["clip"] == [0.2, 0.28]
    assert found["actor_train"]["config"]["loss"]["dual_clip"] == 10.0
    assert any("not sampled again" in what for what in notes(made, NO_TWIN).values())
    assert notes(made, REFUSED) == {}


@pytest.mark.parametrize(
    ("told", "loss"),
    [
        ({}, {"clip": [0.2, 0.2], "dual_clip": 3.0, "kl": "kl"}),
        ({f"{ACTOR}.policy_loss.loss_mode": "gspo"}, {"kind": "gspo", "clip": [0.2, 0.2], "kl": "kl"}),
        ({f"{ACTOR}.policy_loss.loss_mode": "gpg"}, {"kind": "gpg", "kl": "kl"}),
        ({f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean"}, {"mean": "sequence"}),
        ({f"{ACTOR}.loss_agg_mode": "seq-mean-token-sum-norm"}, {"kind": "dr_grpo"}),
        ({"algorithm.adv_estimator": "cpgd", f"{ACTOR}.policy_drift_coeff": 0.01}, {"kind": "cpgd", "drift": 0.01}),
        ({f"{ACTOR}.use_kl_loss": True, f"{ACTOR}.kl_loss_coef": 0.02}, {"kl": 0.02}),
        ({f"{ACTOR}.use_kl_loss": True, f"{ACTOR}.kl_loss_type": "kl"}, {"kl": 0.001, "kl_kind": "k1"}),
        ({f"{ACTOR}.entropy_coeff": 0.001}, {"entropy": 0.001}),
    ],
)
def test_a_loss_is_told_by_its_settings(told: dict[str, Any], loss: dict[str, Any]) -> None:
    """As the format has them; siiRL's own default, where it differs from ours, is written out."""
    made = draft("grpo", **told)
    found = stages(made)["actor_train"]["config"]["loss"]
    assert found.items() >= loss.items()
    assert notes(made, REFUSED) == {}


def test_updates_and_optimizer_follow_the_settings() -> None:
    """Mini-batches of prompts, epochs over them, a ramp."""
    told = {
        "ppo_mini_batch_size": 16,
        "ppo_epochs": 2,
        "grad_clip": 0.5,
        "optim.lr": "3e-6",
        "optim.lr_warmup_steps": 5,
    }
    config = stages(draft("grpo", **{f"{ACTOR}.{key}": value for key, value in told.items()}))["actor_train"]["config"]
    assert (config["epochs"], config["minibatches"], config["clip_norm"]) == (2, 4, 0.5)
    assert config["optimizer"] == {"adamw": {"lr": "3e-6", "ramp_steps": 5, "weight_decay": 0.01}}


def test_another_engine_samples_and_the_policy_scores_again() -> None:
    """Then the trainer's own log-probabilities have a use, and sglang's place is taken."""
    made = draft("grpo", **{f"{ROLLOUT}.name": "sglang", f"{ACTOR}.use_kl_loss": True})
    found = stages(made)
    assert found["rollout_actor"]["engine"] == "vllm"
    assert found["actor_old_log_prob"]["model"] == "policy"
    assert found["actor_train"]["reads"] == ["actor_old_log_prob.logprob", "reference_log_prob.logprob"]
    assert notes(made, NO_TWIN) == {"rollout.name=sglang": "vLLM samples in its place"}
    assert notes(made, REFUSED) == {}


def test_data_tests_and_checkpoints_come_along() -> None:
    """Rows are conversations with the answer in an object, as verl and siiRL have them."""
    told = {"data__val_files": "a.parquet,b.parquet", "data__max_prompt_length": 512, "data__truncation": "left"}
    made = draft("grpo", **told, trainer__test_freq=5, trainer__save_freq=10, trainer__max_actor_ckpt_to_keep=3)
    assert made.spec["data"]["test"] == {
        "parquet": "a.parquet",
        "messages": "prompt",
        "answer": "reward_model.ground_truth",
        "max_prompt_tokens": 512,
        "long_prompts": "cut_left",
    }
    assert (stages(made)["test"]["op"], stages(made)["test"]["every"]) == ("evaluate", 5)
    assert made.spec["checkpoint"] == {"every": 10, "keep": 3}
    assert "data.val_files" in notes(made, NO_TWIN)
    assert notes(made, REFUSED) == {}


def test_a_function_of_ones_own_is_a_stage_and_a_task_for_its_owner() -> None:
    """It takes the place of what nobody else does, and has to be written anew: it gets rows."""
    nodes = [
        Node("roll", "siirl.dag_worker.dagworker:DAGWorker.generate"),
        Node("My Reward", "examples.mine:my_reward", ("roll",)),
        Node("adv", "siirl.dag_worker.dagworker:DAGWorker.compute_advantage", ("My Reward",)),
        Node("tidy", "examples.mine.tidy_up", ("adv",)),
        Node("learn", "siirl.dag_worker.dagworker:DAGWorker.train_actor", ("tidy",)),
    ]
    made = translate(make_workflow("own", nodes, "mine.py", {"mine": "mine.py"}), Settings(TOLD))
    found = stages(made)
    assert found["my_reward"] == {"id": "my_reward", "op": "mine.py:my_reward", "writes": ["reward"]}
    assert found["tidy"]["op"] == "mine.py:tidy_up"
    assert set(notes(made, TO_DO)) == {"stages.my_reward", "stages.tidy"}
    assert notes(made, REFUSED) == {}


def test_a_reward_function_is_named_with_what_it_has_to_take() -> None:
    """siiRL calls it with arguments of other names."""
    made = draft("grpo", custom_reward_function__path="/data/rewards/judge.py", custom_reward_function__name="score")
    assert stages(made)["function_reward"]["config"]["function"] == "judge.py:score"
    assert "`completion` for `solution_str`" in notes(made, TO_DO)["stages.function_reward"]


def test_agents_in_turn_have_no_twin_and_the_graph_is_kept() -> None:
    """Each agent's stages go by its own rollout and models; what cannot run is told as validation tells it."""
    nodes = [
        Node("plan", type="MODEL_INFERENCE", role="ROLLOUT", options={"env_path": ["x"]}),
        Node("answer", type="MODEL_INFERENCE", role="ROLLOUT", needs=("plan",), agent=1),
        Node("judge", role="REWARD", needs=("answer",), agent=1),
        Node("adv", role="ADVANTAGE", needs=("judge",), agent=1),
        Node("train_0", type="MODEL_TRAIN", role="ACTOR", needs=("adv",)),
        Node("train_1", type="MODEL_TRAIN", role="ACTOR", needs=("train_0",), agent=1),
    ]
    made = translate(make_workflow("agents", nodes, "agents.yaml"), Settings(TOLD))
    assert stages(made)["train_0"]["model"] == "policy_0"
    assert stages(made)["train_1"]["reads"] == ["answer.rollout"]
    assert {"answer", "plan.agent_options"} <= notes(made, NO_TWIN).keys()
    assert notes(made, REFUSED)


def test_every_setting_becomes_something_or_is_told() -> None:
    """Those of hosts and memory in one line, each other one by itself; none in silence."""
    made = draft("grpo", trainer__nnodes=4, **{f"{ROLLOUT}.gpu_memory_utilization": 0.6, "algorithm.use_pf_ppo": True})
    assert any(where.startswith("2 settings, such as") for where in notes(made, LEFT_OUT))
    assert notes(made, NO_TWIN) == {"algorithm.use_pf_ppo=True": "this setting became nothing"}


def test_what_was_filled_in_stands_in_the_spec_too() -> None:
    """Whoever opens the file later sees it where it is."""
    graph, nodes = BUILTIN["grpo_pipeline"]
    made = translate(make_workflow(graph, [Node.of(node) for node in nodes], "grpo"), Settings())
    told = notes(made, FILLED_IN)
    assert told.keys() >= {"trainer.total_epochs", "rollout.n", "data.train_files", "actor_rollout_ref.model.path"}
    lines = [line.strip().removeprefix("# filled in: ") for line in made.text().splitlines()]
    assert [what for what in told.values() if what not in lines] == []


def test_robots_have_no_twin() -> None:
    """The rest of the graph is there all the same."""
    made = draft("embodied_srpo")
    assert "embodied_sampling" in notes(made, NO_TWIN)
    assert any("robots" in what for what in notes(made, NO_TWIN).values())
